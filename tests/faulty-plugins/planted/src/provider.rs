//! The provider's calls, each with the place where its faults are planted.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::cloud::Cloud;
use crate::fault::Fault;

mod wire {
    #![expect(unreachable_pub, reason = "generated code")]
    tonic::include_proto!("proto");
}

use wire::instance_group_server::{InstanceGroup, InstanceGroupServer};

/// One second, as the wire counts.
const SECOND_NANOS: i64 = 1_000_000_000;
const PASSWORD: &str = "planted-password-9d1f";

pub(crate) struct Provider {
    fault: Fault,
    ending: watch::Receiver<bool>,
    group: Mutex<Option<Group>>,
    lists: AtomicU32,
    is_busy: AtomicBool,
}

struct Group {
    cloud: Cloud,
    connector: wire::ConnectorConfig,
    token: String,
}

pub(crate) fn server(provider: Provider) -> InstanceGroupServer<Provider> {
    let is_small = provider.is(Fault::SmallMessages);
    let server = InstanceGroupServer::new(provider);
    if is_small { server } else { server.max_decoding_message_size(i32::MAX as usize) }
}

impl Provider {
    pub(crate) fn new(fault: Fault, ending: watch::Receiver<bool>) -> Self {
        Self {
            fault,
            ending,
            group: Mutex::new(None),
            lists: AtomicU32::new(0),
            is_busy: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Group>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Group) -> Result<T, Status>) -> Result<T, Status> {
        match self.lock().as_mut() {
            Some(group) => act(group),
            None if self.fault == Fault::CrashesBeforeInit => std::process::abort(),
            None => Err(Status::unknown("not initialized: Init must succeed first")),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The error for an id that is not there.
    fn nobody(&self, id: &str, token: &str) -> Status {
        match self.fault {
            Fault::SecretInError => Status::unknown(format!("no {id} for token {token}")),
            Fault::ManyLines => Status::unknown(format!("no {id}\ngoroutine 1\nmain.go:7")),
            _ => Status::unknown(format!("there is no instance {id}")),
        }
    }
}

type States = Pin<Box<dyn Stream<Item = Result<wire::UpdateResponse, Status>> + Send>>;

#[tonic::async_trait]
impl InstanceGroup for Provider {
    async fn init(
        &self,
        request: Request<wire::InitRequest>,
    ) -> Result<Response<wire::InitResponse>, Status> {
        let request = request.into_inner();
        let config = match serde_json::from_slice(&request.config) {
            Ok(serde_json::Value::Object(config)) => config,
            _ if self.is(Fault::TakesBrokenConfig) => serde_json::Map::new(),
            _ if self.is(Fault::RefusesWithoutWords) => return Err(Status::unknown("")),
            Ok(_) => return Err(Status::unknown("unmarshaling config: not an object")),
            Err(error) => return Err(Status::unknown(format!("unmarshaling config: {error}"))),
        };
        if self.is(Fault::NeedsMore) {
            return Err(Status::unknown("region: is missing, write the region of the group"));
        }
        let text = |key: &str| config.get(key).and_then(|it| it.as_str()).unwrap_or_default();
        let mut group = self.lock();
        if self.is(Fault::CrashesAtSecondInit) && group.is_some() {
            std::process::abort();
        }
        let file = PathBuf::from(text("state"));
        match self.fault {
            Fault::LogsConfig => eprintln!("[INFO] config: {config:?}"),
            Fault::OddLogLine => eprintln!(r#"{{"@level":"info","@message":7}}"#),
            Fault::LongLogLine => eprintln!("{}", "x".repeat(70_000)),
            _ => eprintln!(r#"{{"@level":"info","@message":"up"}}"#),
        }
        *group = Some(Group {
            cloud: Cloud::open(self.fault, file),
            connector: request.settings.unwrap_or_default().connector_config.unwrap_or_default(),
            token: text("token").to_owned(),
        });
        let unless = |fault: Fault, text: &str| match self.is(fault) {
            true => String::new(),
            false => text.to_owned(),
        };
        Ok(Response::new(wire::InitResponse {
            id: unless(Fault::NoId, "planted/group"),
            max_size: if self.is(Fault::NoSize) { 0 } else { 20 },
            version: unless(Fault::NoVersionInInit, "1.0"),
            build_info: "planted".to_owned(),
            capabilities: vec!["suspend_resume".to_owned()],
        }))
    }

    type UpdateStream = States;

    async fn update(&self, _: Request<wire::Empty>) -> Result<Response<States>, Status> {
        if self.is(Fault::OneCallAtATime) {
            if self.is_busy.swap(true, Ordering::SeqCst) {
                return Err(Status::unknown("another call is running"));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.is_busy.store(false, Ordering::SeqCst);
        }
        if self.is(Fault::Chatters) {
            println!("listing");
        }
        let mut listed = self.with(|group| Ok(group.cloud.list()))?;
        let number = self.lists.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::NoList => return Err(Status::unknown("the API does not answer, try later")),
            Fault::EmptyId if !listed.is_empty() => listed.push((String::new(), 3)),
            Fault::TwiceListed => listed.extend(listed.clone()),
            Fault::ForgetfulList if number % 2 == 1 => listed.truncate(0),
            Fault::ShortListWhileBusy if self.is_busy.load(Ordering::SeqCst) => listed.clear(),
            _ => {}
        }
        let responses: Vec<_> = listed
            .into_iter()
            .map(|(instance, state)| Ok(wire::UpdateResponse { instance, state }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(responses))))
    }

    async fn increase(
        &self,
        request: Request<wire::IncreaseRequest>,
    ) -> Result<Response<wire::IncreaseResponse>, Status> {
        let n = request.into_inner().n;
        match self.fault {
            Fault::IncreaseHangs if n > 0 => {
                let _ = self.ending.clone().wait_for(|ended| *ended).await;
            }
            Fault::IncreaseFails if n > 0 => return Err(Status::unknown("out of capacity")),
            Fault::ShortListWhileBusy if n > 0 => {
                self.is_busy.store(true, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(500)).await;
                self.is_busy.store(false, Ordering::SeqCst);
            }
            _ => {}
        }
        self.with(|group| {
            group.cloud.create(match self.fault {
                Fault::MakesAtZero if n == 0 => 1,
                Fault::OneTooMany if n > 0 => n + 1,
                Fault::MakesNone => 0,
                _ => n,
            });
            Ok(())
        })?;
        let succeeded = if self.is(Fault::TellsTooMany) && n > 0 { n + 1 } else { n };
        Ok(Response::new(wire::IncreaseResponse { succeeded }))
    }

    async fn decrease(
        &self,
        request: Request<wire::DecreaseRequest>,
    ) -> Result<Response<wire::DecreaseResponse>, Status> {
        let asked = request.into_inner().instances;
        self.with(|group| {
            for id in &asked {
                let is_known = group.cloud.has(id);
                let number = id.strip_prefix("i-").and_then(|number| number.parse::<u64>().ok());
                match self.fault {
                    Fault::DeletesKnownOnly if number.is_none() => {
                        return Err(self.nobody(id, &group.token));
                    }
                    Fault::DeletesOnce if number.is_some() && !is_known => {
                        return Err(self.nobody(id, &group.token));
                    }
                    Fault::DeletesNothing => {}
                    Fault::DeletesAll if is_known => group.cloud.delete_all(),
                    _ => {
                        group.cloud.delete(id);
                    }
                }
            }
            let succeeded = if self.is(Fault::TellsNoDeletion) { Vec::new() } else { asked };
            Ok(Response::new(wire::DecreaseResponse { succeeded }))
        })
    }

    async fn connect_info(
        &self,
        request: Request<wire::ConnectInfoRequest>,
    ) -> Result<Response<wire::ConnectInfoResponse>, Status> {
        let id = request.into_inner().instance;
        self.with(|group| {
            if !group.cloud.has(&id) && !self.is(Fault::ConnectsAnybody) {
                return Err(self.nobody(&id, &group.token));
            }
            if self.is(Fault::NoConnectInfo) {
                return Err(Status::unknown("its address is not known, try later"));
            }
            if self.is(Fault::LogsPassword) {
                eprintln!("[DEBUG] login ci:{PASSWORD}");
            }
            let address = if self.is(Fault::NoAddress) { "" } else { "127.0.0.1:1" };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let soon = i64::try_from(now.as_secs() + 3600).unwrap_or(i64::MAX);
            Ok(Response::new(wire::ConnectInfoResponse {
                connector: (!self.is(Fault::NoConnector)).then(|| self.connector(group)),
                external_addr: String::new(),
                internal_addr: address.to_owned(),
                expires: match self.fault {
                    Fault::ExpiresInNanos => soon.saturating_mul(SECOND_NANOS),
                    Fault::Expired => soon - 7200,
                    _ => soon,
                },
            }))
        })
    }

    async fn heartbeat(
        &self,
        request: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::Empty>, Status> {
        let id = request.into_inner().instance;
        self.with(|group| match self.fault {
            Fault::Unhealthy => Err(Status::unknown("instance is unhealthy")),
            Fault::AnybodyIsHealthy => Ok(Response::new(wire::Empty {})),
            _ if group.cloud.has(&id) => Ok(Response::new(wire::Empty {})),
            _ => Err(Status::unknown("instance is unhealthy")),
        })
    }

    async fn suspend(
        &self,
        request: Request<wire::SuspendRequest>,
    ) -> Result<Response<wire::SuspendResponse>, Status> {
        if self.is(Fault::CannotSuspend) {
            return Err(Status::unimplemented("suspend"));
        }
        let ids = request.into_inner().instances;
        let succeeded = self.with(|group| Ok(group.cloud.suspend(&ids, true)))?;
        Ok(Response::new(wire::SuspendResponse { succeeded }))
    }

    async fn resume(
        &self,
        request: Request<wire::ResumeRequest>,
    ) -> Result<Response<wire::ResumeResponse>, Status> {
        let ids = request.into_inner().instances;
        let succeeded = self.with(|group| Ok(group.cloud.suspend(&ids, false)))?;
        Ok(Response::new(wire::ResumeResponse { succeeded }))
    }

    async fn shutdown(&self, _: Request<wire::Empty>) -> Result<Response<wire::Empty>, Status> {
        self.with(|group| {
            match self.fault {
                Fault::ShutdownFails => return Err(Status::unknown("cannot close the client")),
                Fault::ShutdownDeletes => group.cloud.delete_all(),
                Fault::SavesAtShutdown => group.cloud.save(),
                _ => {}
            }
            Ok(Response::new(wire::Empty {}))
        })
    }
}

impl Provider {
    fn connector(&self, group: &Group) -> wire::ConnectorConfig {
        let mut connector = group.connector.clone();
        connector.username = if self.is(Fault::NoUser) { "" } else { "ci" }.to_owned();
        connector.password = PASSWORD.to_owned();
        match self.fault {
            Fault::OddProtocol => connector.protocol = "telnet".to_owned(),
            Fault::NoTimes => (connector.keepalive, connector.timeout) = (0, 0),
            Fault::TimesInSeconds => {
                connector.keepalive /= SECOND_NANOS;
                connector.timeout /= SECOND_NANOS;
            }
            Fault::BadKey => connector.key = b"c3NoLWtleQ==".to_vec(),
            _ => {}
        }
        connector
    }
}
