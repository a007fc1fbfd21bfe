//! The deploy files against the typed Kubernetes API and against the binary: commands, ports, settings; probes against the
//! roles as they run.
//!
//! With TAMTAM_TEST_KUBECTL (a path; `make test-deploy` sets it) what `kubectl kustomize` makes of each kustomization is
//! read; without it the files themselves are, which leaves out the overlays' patches only.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Container, Namespace, PodSpec, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::support::{
    database,
    process::{Process, command, run},
    proxy::Proxy,
    simulator::eventually,
    tamtam::{Installation, KEY},
};

const KUSTOMIZATIONS: [&str; 2] = ["base", "overlays/single-node"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/k8s")
}

fn documents(text: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .filter(|document: &Value| !document.is_null())
        .collect()
}

/// What one kustomization is made of.
fn manifests(name: &str) -> Vec<Value> {
    let path = directory().join(name);
    if let Ok(kubectl) = std::env::var("TAMTAM_TEST_KUBECTL") {
        let output = Command::new(&kubectl).arg("kustomize").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut manifests = documents(&String::from_utf8(output.stdout).unwrap());
        manifests.iter_mut().for_each(unwrap_secret);
        return manifests;
    }
    let kustomization = std::fs::read_to_string(path.join("kustomization.yaml")).unwrap();
    let kustomization = documents(&kustomization).remove(0);
    kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(|file| file.ends_with(".yaml"))
        .flat_map(|file| documents(&std::fs::read_to_string(path.join(file)).unwrap()))
        .collect()
}

/// Kustomize writes a long secret in several lines. Kubernetes reads past their ends, the types' base64 does not.
fn unwrap_secret(manifest: &mut Value) {
    let data = manifest["kind"] == "Secret";
    let data = data.then(|| manifest.get_mut("data").and_then(Value::as_object_mut));
    for value in data.flatten().into_iter().flat_map(|data| data.values_mut()) {
        if let Value::String(text) = value {
            text.retain(|character| character != '\n');
        }
    }
}

/// Reads a manifest as its type; a key that the type does not know would be lost on the way, and is an error.
fn typed<T: DeserializeOwned + Serialize>(manifest: &Value) -> T {
    let name = format!("{} {}", manifest["kind"], manifest["metadata"]["name"]);
    let read: T = serde_json::from_value(manifest.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let back = serde_json::to_value(&read).unwrap();
    lost(manifest, &back, &name);
    read
}

fn lost(written: &Value, read: &Value, at: &str) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                // An empty object or list says nothing and may be left out.
                let empty =
                    value.as_object().is_some_and(|map| map.is_empty()) || value.as_array().is_some_and(Vec::is_empty);
                match read.get(key) {
                    Some(found) => lost(value, found, &format!("{at}.{key}")),
                    None => assert!(empty, "{at}.{key} is unknown to Kubernetes"),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            assert_eq!(written.len(), read.len(), "{at}");
            for (index, (one, other)) in written.iter().zip(read).enumerate() {
                lost(one, other, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(written, read, "{at}"),
    }
}

fn of_kind<T: DeserializeOwned + Serialize>(manifests: &[Value], kind: &str) -> Vec<T> {
    manifests
        .iter()
        .filter(|manifest| manifest["kind"] == kind)
        .map(typed)
        .collect()
}

/// The pods of a kustomization, by the name of what makes them.
fn pods(manifests: &[Value]) -> BTreeMap<String, PodSpec> {
    let deployments: Vec<Deployment> = of_kind(manifests, "Deployment");
    let jobs: Vec<Job> = of_kind(manifests, "Job");
    let deployments = deployments
        .into_iter()
        .map(|one| (one.metadata.name, one.spec.unwrap().template.spec));
    let jobs = jobs
        .into_iter()
        .map(|one| (one.metadata.name, one.spec.unwrap().template.spec));
    deployments
        .chain(jobs)
        .map(|(name, pod)| (name.unwrap(), pod.unwrap()))
        .collect()
}

fn ours(pod: &PodSpec) -> Option<&Container> {
    pod.containers.iter().find(|container| container.name == "tamtam")
}

/// The settings' default ports by the name of their key.
fn default_ports() -> BTreeMap<String, i32> {
    let settings = include_str!("../../crates/tamtam/src/settings/default.toml");
    let settings: toml::Table = settings.parse().unwrap();
    settings["listen"]
        .as_table()
        .unwrap()
        .iter()
        .map(|(key, address)| {
            (
                key.clone(),
                address.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap(),
            )
        })
        .collect()
}

#[test]
fn every_manifest_is_of_the_kubernetes_api() {
    for name in KUSTOMIZATIONS {
        let manifests = manifests(name);
        assert!(manifests.len() > 3, "{name}");
        for manifest in &manifests {
            match manifest["kind"].as_str().unwrap() {
                "Deployment" => drop(typed::<Deployment>(manifest)),
                "Job" => drop(typed::<Job>(manifest)),
                "Service" => drop(typed::<Service>(manifest)),
                "ConfigMap" => drop(typed::<ConfigMap>(manifest)),
                "Secret" => drop(typed::<Secret>(manifest)),
                "Namespace" => drop(typed::<Namespace>(manifest)),
                "PodDisruptionBudget" => drop(typed::<PodDisruptionBudget>(manifest)),
                // KEDA's own type; its fields are checked below.
                "ScaledObject" => assert_eq!(manifest["apiVersion"], "keda.sh/v1alpha1"),
                other => panic!("{name}: {other} was not expected"),
            }
        }
    }
}

#[test]
fn every_command_is_one_of_the_binarys() {
    let here = tempfile::tempdir().unwrap();
    let mut roles = BTreeSet::new();
    for name in KUSTOMIZATIONS {
        for (pod_name, pod) in pods(&manifests(name)) {
            let Some(container) = ours(&pod) else { continue };
            let arguments = container.args.as_ref().unwrap();
            assert!(
                container.command.is_none(),
                "{pod_name}: the image's entrypoint is the binary"
            );
            let output = command(here.path(), &[arguments[0].as_str(), "--help"])
                .output()
                .unwrap();
            assert!(output.status.success(), "{pod_name}: `{}` is no command", arguments[0]);
            roles.insert(arguments[0].clone());
        }
    }
    for role in [
        "ingest",
        "segmenter",
        "renderer",
        "dispatcher",
        "receipt-collector",
        "console",
        "migrate",
    ] {
        assert!(roles.contains(role), "{role} is deployed");
    }
}

#[test]
fn ports_probes_and_services_are_the_binarys() {
    let defaults = default_ports();
    let setting_of = BTreeMap::from([
        ("http", "console"),
        ("grpc", "grpc"),
        ("callbacks", "callbacks"),
        ("metrics", "metrics"),
        ("smpp", "simulator_smpp"),
    ]);
    for name in KUSTOMIZATIONS {
        let manifests = manifests(name);
        let pods = pods(&manifests);
        for (pod_name, container) in pods.iter().filter_map(|(name, pod)| Some((name, ours(pod)?))) {
            for port in container.ports.iter().flatten() {
                let port_name = port.name.as_deref().unwrap();
                let setting = match (pod_name.as_str(), port_name) {
                    ("simulator", "http") => "simulator_http",
                    _ => setting_of[port_name],
                };
                assert_eq!(port.container_port, defaults[setting], "{pod_name} {port_name}");
            }
            for probe in [
                &container.startup_probe,
                &container.liveness_probe,
                &container.readiness_probe,
            ]
            .into_iter()
            .flatten()
            {
                let get = probe.http_get.as_ref().unwrap();
                let path = get.path.as_deref().unwrap();
                assert!(["/healthz", "/readyz"].contains(&path), "{pod_name}: {path}");
                let IntOrString::String(port) = &get.port else {
                    panic!("{pod_name}: a probe names its port")
                };
                let mut ports = container.ports.iter().flatten();
                assert!(
                    ports.any(|one| one.name.as_deref() == Some(port)),
                    "{pod_name}: no port `{port}`"
                );
            }
        }
        for service in of_kind::<Service>(&manifests, "Service") {
            let spec = service.spec.unwrap();
            let pod = &pods[&spec.selector.unwrap()["app.kubernetes.io/name"]];
            for port in spec.ports.unwrap() {
                let IntOrString::String(target) = port.target_port.unwrap() else {
                    panic!("a service names its port")
                };
                let found = pod
                    .containers
                    .iter()
                    .flat_map(|container| container.ports.iter().flatten());
                assert!(
                    found.filter(|port| port.name.as_deref() == Some(&target)).count() == 1,
                    "{target}"
                );
            }
        }
    }
}

#[test]
fn what_runs_is_not_root_and_has_limits() {
    for name in KUSTOMIZATIONS {
        for (pod_name, pod) in pods(&manifests(name)) {
            let security = pod.security_context.as_ref().unwrap();
            assert_eq!(security.run_as_non_root, Some(true), "{pod_name}");
            for container in &pod.containers {
                let resources = container.resources.as_ref().unwrap();
                assert!(resources.limits.as_ref().unwrap().contains_key("memory"), "{pod_name}");
            }
            if let Some(container) = ours(&pod) {
                let security = container.security_context.as_ref().unwrap();
                assert_eq!(security.read_only_root_filesystem, Some(true), "{pod_name}");
                assert_eq!(security.allow_privilege_escalation, Some(false), "{pod_name}");
            }
        }
    }
}

/// The binary refuses a setting that it does not know before it does anything: with one bad value beside the deployed
/// ones it complains of that one alone.
fn assert_known(mut settings: BTreeMap<String, String>) {
    let here = tempfile::tempdir().unwrap();
    assert!(settings.len() > 8, "{settings:?}");
    settings.insert("TAMTAM__STAGE__BATCH_RECORDS".into(), "many".into());
    let environment: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let output = run(here.path(), &["renderer"], &environment);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.to_lowercase().contains("batch_records"), "{said}");
    for name in settings.keys().filter(|name| !name.ends_with("BATCH_RECORDS")) {
        let key = name.rsplit("__").next().unwrap().to_lowercase();
        assert!(!said.contains(&format!(".{key}")), "{name}: {said}");
    }
}

#[test]
fn every_setting_is_the_binarys() {
    let mut settings = BTreeMap::new();
    for manifest in manifests("base")
        .iter()
        .filter(|manifest| manifest["kind"] == "ConfigMap")
    {
        settings.extend(typed::<ConfigMap>(manifest).data.unwrap_or_default());
    }
    for name in KUSTOMIZATIONS {
        for pod in pods(&manifests(name)).values() {
            for variable in ours(pod)
                .into_iter()
                .flat_map(|container| container.env.iter().flatten())
            {
                if variable.name.starts_with("TAMTAM__") {
                    let value = match variable.name.as_str() {
                        "TAMTAM__DATABASE__URL" => "postgres://a:b@127.0.0.1:1/c",
                        "TAMTAM__ADMIN__KEY" => KEY,
                        _ => variable.value.as_deref().unwrap(),
                    };
                    settings.insert(variable.name.clone(), value.to_owned());
                }
            }
        }
    }
    assert_known(settings);
}

/// Each role as the base deploys it: every probe is asked where it points to, while all is well and while the database is
/// away, when a role lives and takes no work.
#[tokio::test(flavor = "multi_thread")]
async fn the_running_roles_answer_their_probes() {
    let url = database::empty_database().await;
    let (_, place) = url.split_once('@').unwrap();
    let (place, _) = place.split_once('/').unwrap();
    let database = Proxy::start(place).await;
    let mut installation = Installation::private().await;
    installation
        .environment
        .insert("TAMTAM__DATABASE__URL".into(), url.replace(place, &database.address));
    installation.migrate();

    let pods = pods(&manifests("base"));
    let mut roles: Vec<(Process, Vec<(String, String)>)> = Vec::new();
    for container in pods.values().filter_map(ours) {
        let role = container.args.as_ref().unwrap()[0].clone();
        if role == "migrate" {
            continue;
        }
        let process = installation.start(&[&role]);
        let probes = [
            &container.startup_probe,
            &container.liveness_probe,
            &container.readiness_probe,
        ];
        let probes: Vec<(String, String)> = probes
            .map(|probe| probe.as_ref().unwrap().http_get.as_ref().unwrap())
            .into_iter()
            .map(|get| {
                let IntOrString::String(port) = &get.port else {
                    panic!("{role}: a probe names its port")
                };
                // The ready line calls the page's port by its role.
                let port = match port.as_str() {
                    "http" => "console",
                    other => other,
                };
                (port.to_owned(), get.path.clone().unwrap())
            })
            .collect();
        roles.push((process, probes));
    }
    assert_eq!(roles.len(), 6);

    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let all_answer = |readiness: u16| {
        let (client, roles) = (client.clone(), &roles);
        async move {
            for (process, probes) in roles {
                for (port, path) in probes {
                    let url = format!("{}{path}", process.at(port));
                    let status = client.get(url).send().await.unwrap().status().as_u16();
                    let expected = if path == "/readyz" { readiness } else { 200 };
                    if status != expected {
                        return None;
                    }
                }
            }
            Some(())
        }
    };
    eventually("every probe's 200", || all_answer(200)).await;
    database.close();
    eventually("503 for readiness and 200 for liveness", || all_answer(503)).await;
    database.open();
    eventually("every probe's 200 again", || all_answer(200)).await;
    for (process, _) in &mut roles {
        assert!(process.is_running());
    }
}

/// The services of compose.yaml, with what they share merged in.
fn compose() -> Value {
    let text = std::fs::read_to_string(directory().join("../compose.yaml")).unwrap();
    let mut compose: serde_norway::Value = serde_norway::from_str(&text).unwrap();
    compose.apply_merge().unwrap();
    serde_json::to_value(&compose["services"]).unwrap()
}

#[test]
fn compose_runs_one_service_a_role_with_settings_of_the_binarys() {
    let here = tempfile::tempdir().unwrap();
    let compose = compose();
    let services = compose.as_object().unwrap();
    let defaults = default_ports();
    let mut roles = Vec::new();
    for (name, service) in services {
        let Some(arguments) = service["command"].as_array() else {
            continue;
        };
        if !service["image"].as_str().unwrap().starts_with("tamtam:") {
            continue;
        }
        let arguments: Vec<&str> = arguments.iter().map(|argument| argument.as_str().unwrap()).collect();
        assert_eq!(arguments, [name.as_str()], "a service has its role's name");
        let output = command(here.path(), &[arguments[0], "--help"]).output().unwrap();
        assert!(output.status.success(), "`{name}` is no command");
        roles.push(name.as_str());

        let environment = service["environment"].as_object().unwrap();
        let settings = environment.iter().map(|(name, value)| {
            let value = match name.as_str() {
                "TAMTAM__ADMIN__KEY" => KEY,
                _ => value.as_str().unwrap(),
            };
            (name.clone(), value.to_owned())
        });
        let settings: BTreeMap<String, String> = settings.collect();
        assert!(settings.keys().all(|name| name.starts_with("TAMTAM__")), "{settings:?}");
        let published = service["ports"].as_array().into_iter().flatten();
        for port in published.map(|port| port.as_str().unwrap()) {
            let inside: i32 = port.rsplit(':').next().unwrap().parse().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{port} is open to everybody");
            let listens = settings
                .iter()
                .any(|(name, value)| name.starts_with("TAMTAM__LISTEN__") && value.ends_with(&format!(":{inside}")));
            assert!(
                listens && defaults.values().any(|port| *port == inside),
                "{name}: {port}"
            );
        }
        for (setting, value) in settings.iter().filter(|(name, _)| name.starts_with("TAMTAM__LISTEN__")) {
            let key = setting.trim_start_matches("TAMTAM__LISTEN__").to_lowercase();
            assert_eq!(value, &format!("0.0.0.0:{}", defaults[&key]), "{setting}");
        }
        assert_known(settings);
        for needed in service["depends_on"].as_object().unwrap().keys() {
            assert!(services.contains_key(needed), "{name} waits for {needed}");
        }
    }
    roles.sort_unstable();
    assert_eq!(
        roles,
        [
            "console",
            "dispatcher",
            "ingest",
            "migrate",
            "receipt-collector",
            "renderer",
            "segmenter",
            "simulator"
        ]
    );
}

#[test]
fn the_image_is_built_in_stages_and_does_not_run_as_root() {
    let text = std::fs::read_to_string(directory().join("../Dockerfile")).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let after = |instruction: &str| -> Vec<(usize, &str)> {
        let found = lines.iter().enumerate();
        found
            .filter_map(|(number, line)| Some((number, line.strip_prefix(instruction)?.trim())))
            .collect()
    };
    let stages = after("FROM ");
    assert_eq!(stages.len(), 2, "{stages:?}");
    let (last_stage, _) = stages[1];
    let users = after("USER ");
    assert_eq!(users.len(), 1, "{users:?}");
    let (at, user) = users[0];
    assert!(at > last_stage, "the user is the runtime stage's");
    for id in user.split(':') {
        // A number, so that `runAsNonRoot` can be checked without the image's own list of users.
        assert!(id.parse::<u32>().unwrap() >= 10_000, "{user}");
    }
    for pod in pods(&manifests("base")).values() {
        let number = pod.security_context.as_ref().unwrap().run_as_user.unwrap();
        assert_eq!(user.split(':').next().unwrap(), number.to_string());
    }
    assert_eq!(after("ENTRYPOINT ")[0].1, r#"["/usr/local/bin/tamtam"]"#);
    let copied = after("COPY --from=build ");
    assert!(
        copied.len() == 1 && copied[0].1.ends_with("/usr/local/bin/tamtam"),
        "{copied:?}"
    );
    let defaults = default_ports();
    let exposed: Vec<i32> = after("EXPOSE ")[0]
        .1
        .split_whitespace()
        .map(|port| port.parse().unwrap())
        .collect();
    let expected = ["console", "grpc", "callbacks", "metrics"].map(|key| defaults[key]);
    assert_eq!(exposed, expected);
}

#[test]
fn dispatchers_scale_on_the_lag_of_their_topics() {
    // A cluster without KEDA takes the overlay.
    let overlay = manifests("overlays/single-node");
    assert!(overlay.iter().all(|manifest| manifest["kind"] != "ScaledObject"));
    let manifests = manifests("base");
    let scaled: Vec<&Value> = manifests
        .iter()
        .filter(|manifest| manifest["kind"] == "ScaledObject")
        .collect();
    assert_eq!(scaled.len(), 1);
    let spec = &scaled[0]["spec"];
    assert_eq!(spec["scaleTargetRef"]["name"], "dispatcher");
    let mut topics = BTreeSet::new();
    for trigger in spec["triggers"].as_array().unwrap() {
        assert_eq!(
            (&trigger["type"], &trigger["metadata"]["consumerGroup"]),
            (&"kafka".into(), &"tamtam.dispatcher".into())
        );
        topics.insert(trigger["metadata"]["topic"].as_str().unwrap());
    }
    let outbound = [events::Topic::OutboundBulk, events::Topic::OutboundTransactional];
    let names: Vec<String> = outbound.iter().map(|topic| format!("tamtam.{topic}")).collect();
    assert_eq!(topics, names.iter().map(String::as_str).collect());
    let most = spec["maxReplicaCount"].as_u64().unwrap();
    for topic in outbound {
        assert!(
            most <= u64::from(topic.spec().partitions),
            "no replica without a partition"
        );
    }
}
