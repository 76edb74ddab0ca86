//! What a relay reads: frames of its sockets and due entries, as commands.

use super::*;

impl World {
    pub(in crate::queue::deployment) fn relay_reads(&mut self, socket: usize, frame: Frame) {
        let (relay, queue) = (self.sockets[socket].relay, self.sockets[socket].queue);
        self.input(relay, queue, Input::Frame(socket, frame));
    }

    pub(super) fn input(&mut self, relay: usize, queue: usize, input: Input) {
        if self.relays[relay].queues[queue].is_some() {
            return match input {
                Input::Frame(socket, frame) => self.read(relay, queue, socket, frame),
                Input::Due(entry) => self.due_step(relay, queue, entry.due),
            };
        }
        let opening = self.relays[relay].tasks.values_mut().find_map(|task| match task {
            Task::Open { queue: of, waiting } if *of == queue => Some(waiting),
            _ => None,
        });
        match opening {
            Some(waiting) => waiting.push(input),
            None => {
                let task = self.relays[relay].add(Task::Open { queue, waiting: vec![input] });
                self.ask(relay, task, Request::Live(queue));
            }
        }
    }

    pub(super) fn frame_done(&mut self, socket: usize) {
        self.sockets[socket].is_busy = false;
        self.next_frame(socket);
    }

    pub(super) fn read(&mut self, relay: usize, queue: usize, socket: usize, frame: Frame) {
        let name = self.sockets[socket].name.clone();
        let open = self.relays[relay].queues[queue].as_mut().expect("an open queue");
        match (frame, name) {
            (Frame::Register { worker, instance, cpus, leases }, name) => {
                let standing = open.leases.get(&worker).filter(|standing| standing.socket != socket);
                if let Some((other, same)) = standing.map(|s| (s.socket, s.instance == instance)) {
                    let silent = self.now - self.sockets[other].last_frame;
                    let refused = !same && silent < 10_000;
                    self.closed_by_relay(if refused { socket } else { other });
                    if refused {
                        return;
                    }
                }
                let first = name.is_none();
                let why = Why::Register { socket, first, cpus, instance: instance.clone() };
                self.command(relay, queue, Command::Register { worker, instance, first, leases }, why);
            }
            (Frame::Accept(lease), Some((worker, _))) => {
                let why = Why::Accept { socket, lease: lease.clone() };
                self.command(relay, queue, Command::Accept { lease, worker }, why);
            }
            (Frame::Decline(lease, retry), Some((worker, Some(instance)))) => {
                let until = match retry {
                    DeclineRetry::Soon => None,
                    DeclineRetry::Later => Some(Some(self.now + timing::DECLINED_LATER)),
                    DeclineRetry::Never => Some(None),
                };
                let job = open.cache.job_of(&lease);
                if let (Some(until), Some(job)) = (until, job) {
                    open.declines.insert((job, worker.clone()), (instance, until));
                }
                if let (DeclineRetry::Soon, Some(standing)) = (retry, open.leases.get_mut(&worker)) {
                    standing.full = true;
                }
                let why = Why::Decline { socket, lease: lease.clone() };
                self.command(relay, queue, Command::Decline { lease, worker }, why);
            }
            (Frame::Finish(lease, ending, document), Some((worker, _))) => {
                let why = Why::Finish { socket, lease: lease.clone() };
                let documents = match ending {
                    Ending::Result { .. } => vec![(DocumentKey::Result(lease.clone()), document)],
                    Ending::Unreadable(_) => Vec::new(),
                };
                let command = Command::Finish { lease, worker, ending };
                self.command_with(relay, queue, command, why, documents, None);
            }
            (Frame::OldRegister(worker), name) => {
                let command = Command::OldWorker { worker, first: name.is_none() };
                self.command(relay, queue, command, Why::OldRegister { socket });
            }
            (Frame::Ping, Some((worker, None))) => {
                let why = Why::Frame { socket };
                self.command(relay, queue, Command::OldWorker { worker, first: false }, why);
            }
            (Frame::List, Some((worker, None))) => {
                self.send_list(relay, queue, socket, &worker);
                self.frame_done(socket);
            }
            (Frame::Claim(job, started), Some((worker, None))) => {
                let command = Command::Claim { job, worker, time: Timestamp::from_millis(started) };
                self.command(relay, queue, command, Why::Claim { socket });
            }
            (Frame::ClaimFinish(job, ending, document), Some((worker, None))) => {
                self.claim_finish(relay, queue, socket, worker, job, ending, document, self.is_alone());
            }
            (Frame::ClaimLost(job), Some((worker, None))) => {
                self.command(relay, queue, Command::ClaimLost { job, worker }, Why::Frame { socket });
            }
            (Frame::Submit { request, job, namespace, priority, rerun }, _) => {
                self.submit(relay, queue, socket, request, job, namespace, priority, rerun);
            }
            (Frame::LetGo { request, job, why, who }, _) => {
                let command = Command::LetGo { job, why, who, message: None };
                self.command(relay, queue, command, Why::Client { socket, request });
            }
            (Frame::Watch(job), _) => {
                open.watchers.entry(job.clone()).or_default().push(socket);
                self.show(relay, queue, &job, socket);
                self.frame_done(socket);
            }
            _ => self.frame_done(socket),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one frame")]
    pub(super) fn submit(
        &mut self,
        relay: usize,
        queue: usize,
        socket: usize,
        request: u64,
        job: JobId,
        namespace: dockframe_shared::Namespace,
        priority: i8,
        rerun: Option<Rerun>,
    ) {
        let submit = Box::new(Submit {
            verified: is_verified(&job),
            namespace,
            holder: Holder { priority, ..Holder::default() },
            queued_callback: None,
            rerun,
            debug: None,
            tags: None,
            requirements: None,
            needs: needs_of(&job),
            shared: None,
            job: job.clone(),
        });
        let documents = vec![(definition_key(queue, &job), job.as_str().into())];
        let open = self.relays[relay].queues[queue].as_ref().expect("an open queue");
        let is_known = open.cache.record(&job).is_some();
        if self.kind.shared_results && submit.verified && !is_known {
            let key = DocumentKey::Shared(job);
            let task = self.relays[relay].add(Task::Submit { queue, socket, request, submit, documents });
            return self.ask(relay, task, Request::Document(key));
        }
        let why = Why::Client { socket, request };
        self.command_with(relay, queue, Command::Submit(submit), why, documents, None);
    }

    pub(super) fn shared_answer(&self, queue: usize, bytes: &[u8]) -> Option<SharedAnswer> {
        let shared = self.store.decode_shared(bytes);
        let outcome = shared.record.outcome().filter(|_| shared.verified)?;
        let source = if shared.queue == *digest(queue).as_bytes() {
            Source::Run(shared.run.clone())
        } else {
            Source::Shared(shared.run.clone())
        };
        let outcome = Outcome { source, ..outcome.clone() };
        Some(SharedAnswer { outcome, queued_time: shared.record.queued_time })
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one frame")]
    pub(super) fn claim_finish(
        &mut self,
        relay: usize,
        queue: usize,
        socket: usize,
        worker: WorkerId,
        job: JobId,
        ending: Ending,
        document: Vec<u8>,
        is_fresh: bool,
    ) {
        let open = self.relays[relay].queues[queue].as_ref().expect("an open queue");
        let claim = open.cache.record(&job).and_then(|known| {
            known
                .value
                .lease()
                .filter(|lease| lease.is_claim() && lease.worker == worker)
                .map(|l| l.id.clone())
        });
        let why =
            Why::ClaimFinish { socket, job: job.clone(), ending: ending.clone(), document: document.clone() };
        match claim {
            Some(run) => {
                let documents = match ending {
                    Ending::Result { .. } => vec![(DocumentKey::Result(run.clone()), document)],
                    Ending::Unreadable(_) => Vec::new(),
                };
                let command = Command::ClaimFinish { job, worker, run, ending };
                let mut doing = Doing::new(queue, command, why, documents, None);
                doing.is_fresh = is_fresh;
                self.start(relay, doing);
            }
            None if is_fresh => self.frame_done(socket),
            // Another relay may know of the claim: `run` names none yet.
            None => {
                let run = LeaseId::new("none").expect("a name");
                let command = Command::ClaimFinish { job, worker, run, ending };
                let doing = Doing::new(queue, command, why, Vec::new(), None);
                self.refresh(relay, queue, Some(Box::new(doing)));
            }
        }
    }

    pub(super) fn due_step(&mut self, relay: usize, queue: usize, due: Due) {
        match due.what {
            DueKind::Look => {
                let open = self.relays[relay].queues[queue].as_ref().expect("an open queue");
                let granted = open.cache.record(&due.job).and_then(|known| match &known.value.phase {
                    Phase::Granted(lease) => Some(Lease::clone(lease)),
                    _ => None,
                });
                let command = Command::Look {
                    job: due.job.clone(),
                    healthy_since: Timestamp::from_millis(self.relays[relay].healthy_since),
                    another_free: self.another_is_free(relay, queue, &due.job),
                };
                self.command_with(relay, queue, command, Why::Look { granted }, Vec::new(), Some(due));
            }
            DueKind::Share => {
                let key = Key::Record(due.job.clone());
                let task = self.relays[relay].add(Task::ShareRead { queue, due });
                self.ask(relay, task, Request::Read(queue, key));
            }
            DueKind::Callbacks => self.forget_due(relay, queue, due),
        }
    }

    /// The record is written as it is, so that nothing is offered that was taken away a moment ago.
    pub(super) fn share_set(&mut self, relay: usize, queue: usize, due: Due, offer: Option<Offer>) {
        let Some(Offer { key, bytes, revision, entry }) = offer else {
            return self.forget_due(relay, queue, due);
        };
        let write = StoreWrite {
            key: Key::Record(due.job.clone()),
            expected: revision,
            revision: revision + 1,
            bytes: Some(self.store.encode(&entry)),
            live: is_live(Some(&entry), self.time()),
        };
        let job = due.job.clone();
        let commit = Commit {
            queue: digest(queue),
            at: self.time(),
            writes: vec![write],
            due: Vec::new(),
            done: vec![due],
            documents: Vec::new(),
            offers: vec![(key, bytes)],
        };
        let task = self.relays[relay].add(Task::ShareSet { queue, job, revision: revision + 1, entry });
        self.ask(relay, task, Request::Commit(Rc::new(commit), None));
    }

    pub(super) fn forget_due(&mut self, relay: usize, queue: usize, due: Due) {
        let commit = Commit {
            queue: digest(queue),
            at: self.time(),
            writes: Vec::new(),
            due: Vec::new(),
            done: vec![due],
            documents: Vec::new(),
            offers: Vec::new(),
        };
        let task = self.relays[relay].add(Task::Forget);
        self.ask(relay, task, Request::Commit(Rc::new(commit), None));
    }
}
