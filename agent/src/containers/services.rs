//! Services: containers beside the job's, started before it and reached by their names.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use job::plan::Service;
use job::trace::colour::{RESET, YELLOW};
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::daemon::{Ask, next};
use super::furnish::Ties;
use super::script::Frames;
use super::{Job, Trouble, say, start_role, warn};

/// Pause between two looks at a port.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Most of a service's log that is shown when it does not come up.
const SHOWN_LINES: usize = 100;

/// A service that was started.
struct Started {
    name: String,
    image: String,
    ports: Vec<u16>,
}

impl Job<'_> {
    /// Starts all services and waits until they are up. Returns the links to them.
    pub(super) async fn start_services(&self) -> Result<Vec<String>, Trouble> {
        let mut links: Vec<String> = Vec::new();
        let mut started = Vec::new();
        for (number, service) in self.containers.services.iter().enumerate() {
            let what = format!("service-{number}");
            started.push(self.start_service(&what, service, &links).await?);
            let name = self.name(&what);
            links.extend(service.aliases.iter().map(|alias| format!("{name}:{alias}")));
        }
        if self.containers.service_logs && !started.is_empty() {
            self.follow_logs();
        }
        let limit = Duration::from_millis(self.containers.wait_for_services_ms);
        if !started.is_empty() && !limit.is_zero() {
            say(&format!(
                "Waiting for services to be up and running (timeout {} seconds)...",
                limit.as_secs()
            ));
            let deadline = Instant::now() + limit;
            for service in &started {
                self.wait_for(service, deadline).await?;
            }
        }
        // The daemon links to nothing that has ended.
        for service in &started {
            let inspected = self.container(&service.name).await?.unwrap_or_default();
            if inspected["State"]["Running"] != true {
                links.retain(|link| !link.starts_with(&format!("{}:", service.name)));
            }
        }
        Ok(links)
    }

    /// Services are linked to those before them, as under GitLab Runner.
    async fn start_service(
        &self,
        what: &str,
        service: &Service,
        links: &[String],
    ) -> Result<Started, Trouble> {
        let none = job::plan::Container::default();
        let container = service.container.as_ref().unwrap_or(&none);
        say(&format!("Starting service {} ...", container.image));
        let image = self.image(container).await?;
        let ties = Ties {
            network: self.network.clone(),
            links: links.to_vec(),
            aliases: service.aliases.clone(),
        };
        self.make(what, container, ties).await?;
        let name = self.name(what);
        self.start(&name).await?;
        let asked = service.ports.iter().filter_map(|port| u16::try_from(*port).ok());
        let ports: Vec<u16> = asked.collect();
        let ports = if ports.is_empty() { image.ports } else { ports };
        Ok(Started { name, image: container.image.clone(), ports })
    }

    /// A service that does not come up is a warning, and its log is shown: the job may not
    /// need it.
    async fn wait_for(&self, service: &Started, deadline: Instant) -> Result<(), Trouble> {
        if service.ports.is_empty() {
            say(&format!("Service {} exposes no ports: it is not waited for", service.image));
            return Ok(());
        }
        let why = loop {
            let Some(inspected) = self.container(&service.name).await? else {
                break "its container is gone".to_owned();
            };
            if inspected["State"]["Running"] != true {
                break format!("it has ended with exit code {}", inspected["State"]["ExitCode"]);
            }
            let address = address(&inspected);
            if is_up(address, &service.ports, deadline).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                break format!("nothing listens on port {:?} of {address:?}", service.ports);
            }
            sleep(LOOK_INTERVAL).await;
        };
        warn(&format!(
            "\n*** WARNING: Service {} probably didn't start properly.\n\nHealth check error: {why}\n\nService container logs:",
            service.image
        ));
        let log = self.log(&service.name).await;
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).for_each(|line| say(line));
        warn("\n*********\n");
        Ok(())
    }

    async fn log(&self, name: &str) -> String {
        let path = format!("/containers/{name}/logs?stdout=1&stderr=1&tail={SHOWN_LINES}");
        let Ok(mut body) = self.daemon.stream(Ask::get(&path)).await else {
            return String::new();
        };
        let (mut frames, mut text) = (Frames::default(), Vec::new());
        while let Ok(Some(chunk)) = next(&mut body).await {
            frames.push(&chunk, |piece| text.extend_from_slice(piece));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What services print, until the job ends: by a process that stays, since this one
    /// ends with its stage.
    fn follow_logs(&self) {
        let work = job::plan::ContainerWork {
            containers: Some(self.containers.clone()),
            work: Some(job::plan::Work::ServiceLogs(job::plan::ServiceLogs {})),
        };
        if start_role(crate::CONTAINERS, &work.encode_to_vec()).is_err() {
            warn("WARNING: the logs of services cannot be followed");
        }
    }

    /// Prints what services print; ends with the last of them.
    pub(super) async fn service_logs(&self) {
        let mut followed = tokio::task::JoinSet::new();
        for (number, service) in self.containers.services.iter().enumerate() {
            let (daemon, name) = (self.daemon.clone(), self.name(&format!("service-{number}")));
            let alias = service.aliases.last().cloned().unwrap_or_default();
            followed.spawn(async move {
                let path = format!("/containers/{name}/logs?follow=1&stdout=1&stderr=1");
                let Ok(mut body) = daemon.stream(Ask::get(&path)).await else { return };
                let mut lines = Lines::of(&alias);
                let mut frames = Frames::default();
                while let Ok(Some(chunk)) = next(&mut body).await {
                    frames.push(&chunk, |piece| lines.push(piece));
                }
                lines.end();
            });
        }
        followed.join_all().await;
    }
}

/// Prints whole lines out of pieces. A very long one comes in parts without anything in
/// between: a secret in it is still found.
struct Lines {
    prefix: String,
    text: Vec<u8>,
    is_open: bool,
}

impl Lines {
    const LONGEST: usize = 16 * 1024;

    fn of(alias: &str) -> Self {
        let prefix = format!("{YELLOW}[service:{alias}]{RESET} ");
        Self { prefix, text: Vec::new(), is_open: false }
    }

    fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.text.is_empty() && !self.is_open {
                self.text.extend_from_slice(self.prefix.as_bytes());
            }
            self.text.push(*byte);
            if *byte == b'\n' || self.text.len() >= Self::LONGEST {
                self.is_open = *byte != b'\n';
                self.print();
            }
        }
    }

    /// The last line may have no end.
    fn end(&mut self) {
        if self.is_open || !self.text.is_empty() {
            self.text.push(b'\n');
            self.print();
        }
    }

    fn print(&mut self) {
        let mut stdout = std::io::stdout();
        // Nobody reads it any more: the agent is gone, and kills this process in a moment.
        let _ = stdout.write_all(&self.text).and_then(|()| stdout.flush());
        self.text.clear();
    }
}

/// Where a container is reached from the instance.
fn address(inspected: &Value) -> Option<IpAddr> {
    let settings = &inspected["NetworkSettings"];
    let networks = settings["Networks"].as_object();
    let of_networks = networks.into_iter().flat_map(serde_json::Map::values);
    let mut all = std::iter::once(settings).chain(of_networks);
    all.find_map(|network| network["IPAddress"].as_str()?.parse().ok())
}

async fn is_up(address: Option<IpAddr>, ports: &[u16], deadline: Instant) -> bool {
    let Some(address) = address else { return false };
    for port in ports {
        let connected = timeout_at(deadline, TcpStream::connect((address, *port))).await;
        if !matches!(connected, Ok(Ok(_))) {
            return false;
        }
    }
    true
}
