//! The gateway simulator's own account: what reached phones, when, and what was reported back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::Client;
use serde::Deserialize;

#[derive(Clone, Debug)]
pub struct Simulator {
    http: String,
    client: Client,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Stats {
    pub accepted: u64,
    pub distinct: u64,
    pub duplicates: u64,
    /// Receipts that were acknowledged.
    pub receipts: u64,
}

#[derive(Debug, Deserialize)]
struct Page {
    messages: Vec<Shown>,
    next: u64,
}

/// A text as a phone shows it.
#[derive(Debug, Deserialize)]
pub struct Shown {
    pub at: jiff::Timestamp,
    pub text: String,
}

impl Simulator {
    pub fn new(http: &str) -> Result<Simulator> {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Simulator {
            http: http.into(),
            client,
        })
    }

    pub async fn stats(&self) -> Result<Stats> {
        let response = self.client.get(format!("{}/stats", self.http)).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }

    pub async fn reset(&self) -> Result<()> {
        let response = self.client.post(format!("{}/reset", self.http)).send().await?;
        response.error_for_status()?;
        Ok(())
    }

    pub async fn script(&self, toml: &str) -> Result<()> {
        let request = self.client.post(format!("{}/script", self.http)).body(toml.to_owned());
        request
            .send()
            .await?
            .error_for_status()
            .context("the simulator's script")?;
        Ok(())
    }

    /// The first text that it still has (of the last 200,000).
    pub async fn first(&self) -> Result<Option<Shown>> {
        let url = format!("{}/messages?after=0&limit=1", self.http);
        let page: Page = self.client.get(url).send().await?.json().await?;
        Ok(page.messages.into_iter().next())
    }

    /// All texts that it still has (the last 200,000).
    pub async fn texts(&self) -> Result<Vec<Shown>> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let url = format!("{}/messages?after={after}&limit=10000", self.http);
            let page: Page = self.client.get(url).send().await?.json().await?;
            if page.messages.is_empty() {
                return Ok(all);
            }
            after = page.next;
            all.extend(page.messages);
        }
    }
}
