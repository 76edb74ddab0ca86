//! What follows from a commit: effects, answers, states for those who watch.

use super::*;

impl World {
    pub(super) fn show_all(&mut self, relay: usize, queue: usize, job: &JobId) {
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return };
        for socket in open.watchers.get(job).cloned().unwrap_or_default() {
            self.show(relay, queue, job, socket);
        }
    }

    pub(super) fn show(&mut self, relay: usize, queue: usize, job: &JobId, socket: usize) {
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return };
        match open.cache.record(job) {
            Some(known) => {
                let (revision, record) = (known.revision, known.value.clone());
                self.show_record(job, socket, revision, record);
            }
            None => {
                let task = self.relays[relay].add(Task::Show { job: job.clone(), socket });
                self.ask(relay, task, Request::Read(queue, Key::Record(job.clone())));
            }
        }
    }

    pub(super) fn show_record(&mut self, job: &JobId, socket: usize, revision: u64, record: Record) {
        let told = self.sockets[socket].told.entry(job.clone()).or_default();
        if revision > *told {
            *told = revision;
            self.answer(socket, ToPeer::Shown { job: job.clone(), revision, record: Some(Rc::new(record)) });
        }
    }

    pub(super) fn send_list(&mut self, relay: usize, queue: usize, socket: usize, worker: &WorkerId) {
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return };
        let mut jobs: Vec<JobId> = open.cache.waiting().map(|(job, _)| job.clone()).collect();
        let mut own: Vec<JobId> = open
            .cache
            .records()
            .filter(|(_, record)| {
                matches!(&record.phase, Phase::Held(held) if held.is_claim() && held.worker == *worker)
            })
            .map(|(job, _)| job.clone())
            .collect();
        own.sort();
        jobs.append(&mut own);
        self.answer(socket, ToPeer::List(jobs));
    }

    pub(super) fn perform(&mut self, relay: usize, queue: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Changed(job) => self.show_all(relay, queue, &job),
                Effect::Wake => self.match_jobs(relay, queue),
                Effect::Grant { worker, session, job, lease, .. } => {
                    let open = self.relays[relay].queues[queue].as_ref();
                    let standing = open.and_then(|open| open.leases.get(&worker));
                    if let Some(standing) = standing.filter(|standing| standing.session == session) {
                        self.answer(standing.socket, ToPeer::Grant(lease, job));
                    }
                }
                Effect::Revoke { worker, lease, .. } => {
                    let open = self.relays[relay].queues[queue].as_mut();
                    if let Some(standing) = open.and_then(|open| open.leases.get_mut(&worker)) {
                        standing.full = false;
                        let socket = standing.socket;
                        self.answer(socket, ToPeer::Revoke(lease));
                    }
                }
                Effect::DropRun(run) => {
                    let task = self.relays[relay].add(Task::DropRun(run.clone()));
                    self.ask(relay, task, Request::Document(DocumentKey::Result(run)));
                }
                Effect::Unshare { job, run } => {
                    let task = self.relays[relay].add(Task::Unshare { run });
                    self.ask(relay, task, Request::Document(DocumentKey::Shared(job)));
                }
                Effect::Share(_) | Effect::Ended(_) | Effect::ClearCache { .. } | Effect::Callbacks(_) => {}
            }
        }
    }

    /// The end of a command. `None`: the store did not answer, nobody knows whether it was done.
    pub(super) fn conclude(&mut self, relay: usize, doing: &mut Doing, reply: Option<Reply>) {
        let queue = doing.queue;
        match (std::mem::replace(&mut doing.why, Why::Nobody), reply) {
            (Why::Client { socket, request }, reply) => {
                let revision = reply.map(|reply| match reply {
                    Reply::Done { revision } | Reply::AlreadyEnded { revision } => revision,
                    _ => 0,
                });
                self.answer(socket, ToPeer::Done(request, revision));
                self.frame_done(socket);
            }
            (
                Why::Register { socket, first, cpus, instance },
                Some(Reply::Registered { session, revoked }),
            ) => {
                self.registered(
                    relay,
                    queue,
                    socket,
                    first,
                    cpus,
                    instance,
                    session,
                    revoked,
                    &doing.command,
                );
                self.frame_done(socket);
            }
            (Why::OldRegister { socket }, Some(Reply::Registered { session, .. })) => {
                if let Command::OldWorker { worker, .. } = &*doing.command
                    && self.sockets[socket].relay_side
                    && let Some(open) = self.relays[relay].queues[queue].as_mut()
                {
                    open.old.insert(socket, (worker.clone(), session));
                    self.sockets[socket].name = Some((worker.clone(), None));
                    self.sessions.insert((queue, worker.clone(), session), socket);
                    self.send_list(relay, queue, socket, worker);
                }
                self.frame_done(socket);
            }
            (Why::Accept { socket, lease } | Why::Decline { socket, lease }, reply) => {
                if reply == Some(Reply::NotCurrent) {
                    self.answer(socket, ToPeer::Revoke(lease));
                }
                self.frame_done(socket);
            }
            (Why::Finish { socket, lease }, reply) => {
                if let Some(open) = self.relays[relay].queues[queue].as_mut()
                    && let Some(standing) =
                        open.leases.values_mut().find(|standing| standing.socket == socket)
                {
                    standing.full = false;
                }
                self.match_jobs(relay, queue);
                if let Some(Reply::Finished { recorded, .. }) = reply {
                    self.answer(socket, ToPeer::Finished(lease, recorded));
                }
                self.frame_done(socket);
            }
            (Why::Claim { socket }, reply) => {
                if reply == Some(Reply::NotCurrent)
                    && let Command::Claim { worker, .. } = &*doing.command
                {
                    self.send_list(relay, queue, socket, worker);
                }
                self.frame_done(socket);
            }
            (Why::ClaimFinish { socket, job, ending, document }, Some(Reply::Stale)) => {
                if let Command::ClaimFinish { worker, .. } = &*doing.command {
                    let alone = self.is_alone();
                    self.claim_finish(relay, queue, socket, worker.clone(), job, ending, document, alone);
                }
            }
            (Why::Grant, reply) => {
                let progress = matches!(reply, Some(Reply::Done { .. } | Reply::Nothing));
                let Some(open) = self.relays[relay].queues[queue].as_mut() else { return };
                open.granting -= 1;
                open.grant_again |= progress;
                if open.granting == 0 && std::mem::take(&mut open.grant_again) {
                    self.match_jobs(relay, queue);
                }
            }
            (Why::Look { granted }, reply) => {
                if let (Some(_), Some(lease), Command::Look { job, .. }) = (&reply, granted, &*doing.command)
                {
                    self.did_not_accept(relay, queue, job, lease);
                }
                self.stepped(relay, reply.is_some());
            }
            (why, _) => {
                if let Some(socket) = why.socket() {
                    self.frame_done(socket);
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a registration came to")]
    pub(super) fn registered(
        &mut self,
        relay: usize,
        queue: usize,
        socket: usize,
        first: bool,
        cpus: f64,
        instance: InstanceId,
        session: u64,
        revoked: Vec<LeaseId>,
        command: &Command,
    ) {
        let Command::Register { worker, .. } = command else { return };
        self.sessions.insert((queue, worker.clone(), session), socket);
        if !self.sockets[socket].relay_side {
            return self.command(
                relay,
                queue,
                Command::Closed { worker: worker.clone(), session },
                Why::Nobody,
            );
        }
        if first {
            self.answer(socket, ToPeer::Hello);
        }
        let Some(open) = self.relays[relay].queues[queue].as_mut() else { return };
        let standing = Standing { socket, instance: instance.clone(), session, cpus, full: false };
        open.leases.insert(worker.clone(), standing);
        self.sockets[socket].name = Some((worker.clone(), Some(instance)));
        for lease in revoked {
            self.answer(socket, ToPeer::Revoke(lease));
        }
        self.match_jobs(relay, queue);
    }

    pub(super) fn did_not_accept(&mut self, relay: usize, queue: usize, job: &JobId, lease: Lease) {
        let until = self.now + timing::ACCEPT;
        let Some(open) = self.relays[relay].queues[queue].as_mut() else { return };
        let still = open
            .cache
            .record(job)
            .and_then(|known| known.value.active_lease())
            .is_some_and(|l| l.id == lease.id);
        if let (false, Some(instance)) = (still, lease.instance) {
            open.unheard.insert((job.clone(), lease.worker), (instance, until));
        }
    }
}
