//! A headless Chromium, driven over WebDriver by Debian's chromedriver.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

/// How long a page may take to show something, on a machine that is busy with tests.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Browser {
    pub client: Client,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start(language: &str) -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that the browser that it starts ends with it.
            .process_group(0)
            .spawn()
            .expect("chromedriver (Debian: chromium-driver)");
        let stdout = driver.stdout.take().unwrap();
        let port = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let port = lines
                .find_map(|line| {
                    line.split("successfully on port ")
                        .nth(1)?
                        .trim_end_matches('.')
                        .parse::<u16>()
                        .ok()
                })
                .expect("chromedriver names its port");
            // What it says later must not fill the pipe.
            std::thread::spawn(move || lines.for_each(drop));
            port
        })
        .await
        .unwrap();
        let profile = tempfile::tempdir().unwrap();
        let capabilities = json!({
            // A question stays until the test answers it.
            "unhandledPromptBehavior": "ignore",
            "goog:chromeOptions": {
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                    "--window-size=1280,1000", "--no-proxy-server",
                    format!("--lang={language}"), format!("--accept-lang={language}"),
                    format!("--user-data-dir={}", profile.path().display()),
                ],
                "prefs": {"intl.accept_languages": language},
            }
        });
        let serde_json::Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        // chromedriver speaks plain HTTP.
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Browser {
            client,
            driver,
            _profile: profile,
        }
    }

    /// The element, once it is there.
    pub async fn find(&self, css: &str) -> Element {
        let wait = self.client.wait().at_most(PATIENCE);
        match wait.for_element(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!(
                "no `{css}`: {error}\n{}",
                self.client.source().await.unwrap_or_default()
            ),
        }
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Clicks the element, once it is there. In one step with finding it: what a stream swaps in between is no matter.
    pub async fn click(&self, css: &str) {
        self.find(css).await;
        let script = "const found = document.querySelector(arguments[0]); \
                      if (found) setTimeout(() => document.querySelector(arguments[0])?.click()); return found !== null";
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.client.execute(script, vec![json!(css)]).await {
                Ok(serde_json::Value::Bool(true)) => return,
                Ok(_) => {}
                // The click opened a question before the script's answer was there.
                Err(error) if error.to_string().contains("alert") => return,
                Err(error) => panic!("`{css}`: {error}"),
            }
            assert!(tokio::time::Instant::now() < deadline, "no `{css}` to click");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says yes to a question of the page.
    pub async fn accept(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = self.client.accept_alert().await {
            assert!(tokio::time::Instant::now() < deadline, "no question came: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the page's text holds `text`.
    pub async fn sees(&self, text: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let body = self.find("body").await.text().await.unwrap_or_default();
            if body.contains(text) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "`{text}` is not on the page:\n{body}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A picture of the page under `target/screenshots`, for people to look at.
    pub async fn screenshot(&self, name: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(
            directory.join(format!("{name}.png")),
            self.client.screenshot().await.unwrap(),
        )
        .unwrap();
    }

    pub async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.driver.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}
