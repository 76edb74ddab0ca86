//! Workers with leases (`jobs-and-states` 8).

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{Utf8Bytes, WebSocket};
use dockframe_shared::protocol::{
    LeaseFinish, LeaseFinished, LeaseRevoke, Logs, Registration, RelayMessage, RevokeWhy, WorkerHello,
    WorkerMessage,
};
use dockframe_shared::{InstanceId, LeaseId, QueueKey, WorkerId};

use super::connection::{Connection, Ended, Peer};
use crate::error::chain;
use crate::limits::MAX_FINISH_BYTES;
use crate::queue::open::OpenQueue;
use crate::queue::outbox::{Closing, Outbox, Parcel};
use crate::queue::service::{self, Finishing, Registered, Service, WorkerSocket};
use crate::queue::timing::{KILL_GRACE, LEASE_RENEW, LEASE_TTL};

struct LeaseWorker {
    service: Arc<Service>,
    queue: Arc<OpenQueue>,
    socket: WorkerSocket,
    /// Who it is, once it has said so.
    name: Mutex<Option<(WorkerId, InstanceId)>>,
    /// Stands for the process of a worker that names none.
    unnamed_instance: InstanceId,
}

pub(super) async fn serve(service: Arc<Service>, key: QueueKey, socket: WebSocket) {
    let Some(queue) = super::open(&service, &key).await else { return };
    let id = queue.sockets().new_id();
    let Ok(unnamed_instance) = InstanceId::new(uuid::Uuid::new_v4().simple().to_string()) else { return };
    let outbox = Arc::new(Outbox::default());
    let last_frame = Arc::new(AtomicI64::new(0));
    let worker = LeaseWorker {
        service: Arc::clone(&service),
        queue,
        socket: WorkerSocket { id, outbox, last_frame: Arc::clone(&last_frame) },
        name: Mutex::default(),
        unnamed_instance,
    };
    let connection = Connection {
        peer: &worker,
        outbox: &worker.socket.outbox,
        last_frame,
        clock: &service.clock,
        stop: service.stopping(),
    };
    let ended = connection.run(socket).await;
    if let Some((name, _)) = worker.name() {
        let coming_back = ended != Ended::Lost;
        if let Err(error) = service.worker_left(&worker.queue, &name, id, coming_back).await {
            tracing::error!(error = chain(&error), worker.id = %name, "a worker's leaving could not be noted");
        }
    }
}

impl Peer for LeaseWorker {
    /// With its size in bytes.
    type Message = (WorkerMessage, usize);

    fn read(&self, text: Utf8Bytes) -> Option<(WorkerMessage, usize)> {
        super::read_worker(&self.service, &text).map(|message| (message, text.len()))
    }

    fn lane((message, _): &(WorkerMessage, usize)) -> Option<&str> {
        let lease = match message {
            WorkerMessage::LeaseAccept(accept) => &accept.lease_id,
            WorkerMessage::LeaseDecline(decline) => &decline.lease_id,
            WorkerMessage::LeaseFinish(finish) => &finish.lease_id,
            WorkerMessage::Logs(logs) => logs.lease_id.as_ref()?,
            _ => return None,
        };
        Some(lease.as_str())
    }

    async fn message(&self, (message, bytes): (WorkerMessage, usize)) {
        if let Err(error) = self.hear(message, bytes).await {
            // No answer: the worker says it again when it registers, or after its reconnect.
            tracing::error!(error = chain(&error), "a worker's message could not be dealt with");
        }
    }

    async fn frames(&self, parcel: Parcel) -> Vec<String> {
        let mut frames: Vec<String> = parcel.messages.into();
        frames.extend(parcel.workers);
        frames
    }
}

impl LeaseWorker {
    fn name(&self) -> Option<(WorkerId, InstanceId)> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&self, message: &RelayMessage) {
        self.socket.outbox.push(message);
    }

    fn revoke(&self, lease_id: LeaseId) {
        let why = RevokeWhy::Unknown;
        self.send(&RelayMessage::LeaseRevoke(LeaseRevoke { lease_id, why, grace_ms: KILL_GRACE }));
    }

    async fn hear(&self, message: WorkerMessage, bytes: usize) -> Result<(), service::Error> {
        let registered = self.name();
        match (message, registered) {
            (WorkerMessage::Ping, name) => {
                let id = name.map_or_else(|| "unknown".to_owned(), |(id, _)| id.as_str().to_owned());
                self.socket.outbox.answer(&RelayMessage::Pong(Some(id)));
                Ok(())
            }
            (WorkerMessage::Registration(registration), name) => {
                let registered = self.register(registration).await;
                if registered.is_err() && name.is_none() {
                    // Nothing is granted on this socket before: a new one begins anew.
                    self.socket.outbox.close(Closing::TryAgain);
                }
                registered
            }
            (WorkerMessage::LeaseAccept(accept), Some((worker, _))) => {
                let lease = accept.lease_id;
                if !self.service.accept(&self.queue, &worker, lease.clone()).await? {
                    self.revoke(lease);
                }
                Ok(())
            }
            (WorkerMessage::LeaseDecline(decline), Some((worker, instance))) => {
                let lease = decline.lease_id.clone();
                if !self.service.decline(&self.queue, &worker, &instance, decline).await? {
                    self.revoke(lease);
                }
                Ok(())
            }
            (WorkerMessage::LeaseFinish(finish), Some((worker, _))) => {
                self.finish(&worker, finish, bytes).await
            }
            (WorkerMessage::Logs(logs), Some((worker, _))) => {
                let Logs { step, logs, lease_id: Some(lease), from, .. } = logs else { return Ok(()) };
                self.service.lines(&self.queue, &worker, &lease, &step, from, logs).await
            }
            // Of the old way, or before a registration: nothing here (`jobs-and-states` 3.7).
            (
                WorkerMessage::StateChange(_)
                | WorkerMessage::RequestJobDefinitions { .. }
                | WorkerMessage::StatusResponse(_),
                _,
            )
            | (_, None) => Ok(()),
        }
    }

    async fn register(&self, registration: Registration) -> Result<(), service::Error> {
        let worker = registration.id.clone();
        let instance = registration.instance.clone().unwrap_or_else(|| self.unnamed_instance.clone());
        let before = self.name();
        let first = before.as_ref().is_none_or(|(id, known)| *id != worker || *known != instance);
        let hello = first.then(|| {
            RelayMessage::WorkerHello(WorkerHello {
                relay: crate::NAME.to_owned(),
                epoch: self.service.store.epoch(),
                ttl_ms: LEASE_TTL.unsigned_abs(),
                renew_ms: LEASE_RENEW.unsigned_abs(),
                max_finish_bytes: MAX_FINISH_BYTES as u64,
            })
        });
        if let Some((id, _)) = before.filter(|(id, _)| *id != worker) {
            self.service.worker_left(&self.queue, &id, self.socket.id, false).await?;
        }
        let registered =
            self.service.register(&self.queue, &self.socket, registration, &instance, hello.as_ref()).await?;
        match registered {
            Registered::IdTaken => self.socket.outbox.close(Closing::IdTaken),
            Registered::Welcome { revoked } => {
                *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some((worker, instance));
                for lease in revoked {
                    self.revoke(lease);
                }
            }
        }
        Ok(())
    }

    async fn finish(
        &self,
        worker: &WorkerId,
        finish: LeaseFinish,
        bytes: usize,
    ) -> Result<(), service::Error> {
        let LeaseFinish { lease_id, value } = finish;
        let finishing = if bytes > MAX_FINISH_BYTES {
            Finishing::unreadable(&format!("the message has {bytes} bytes, the limit is {MAX_FINISH_BYTES}"))
        } else {
            Finishing::read(&value)
        };
        let (recorded, why) = self.service.finish(&self.queue, worker, &lease_id, &finishing).await?;
        self.send(&RelayMessage::LeaseFinished(LeaseFinished { lease_id, recorded, why }));
        Ok(())
    }
}
