//! Answers `explain` on a thread of its own: the kernel takes seconds to verify the copy of the programs.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use log::{debug, info};
use tokio::sync::oneshot;

use crate::{
    control::protocol::Reply,
    kernel::pins::Pins,
    observe::verdict::{AT_ONCE, VerdictAsker},
    policy::oracle::Opening,
    state::exceptions::Exception,
};

/// The time for which the copy stays loaded after the last question.
const KEPT: Duration = Duration::from_secs(600);
/// The most requests that wait for the thread.
const WAITING: usize = 8;

/// A request for verdicts.
pub(in crate::daemon) struct Task {
    /// The packets.
    pub(in crate::daemon) openings: Vec<Opening>,
    /// The timed exceptions of the daemon.
    pub(in crate::daemon) exceptions: Vec<Exception>,
    /// The channel for the answer.
    pub(in crate::daemon) answer: oneshot::Sender<Reply>,
}

/// The daemon's end of the thread, which starts at the first question.
pub(in crate::daemon) struct Questions {
    pins: Pins,
    thread: Option<SyncSender<Task>>,
}

impl Questions {
    pub(in crate::daemon) const fn new(pins: Pins) -> Self {
        Self { pins, thread: None }
    }

    /// Hands a request to the thread, which sends the answer. Refuses the request if too many wait.
    pub(in crate::daemon) fn put(&mut self, task: Task) {
        if task.openings.len() > AT_ONCE {
            refuse(task, &format!("more than {AT_ONCE} packets in one question"));
            return;
        }
        let sender = match self.thread.take() {
            Some(sender) => sender,
            None => match begin(self.pins.clone()) {
                Ok(sender) => sender,
                Err(error) => return refuse(task, &format!("no thread for questions: {error}")),
            },
        };
        match sender.try_send(task) {
            Ok(()) => {}
            Err(TrySendError::Full(task)) => refuse(task, "too many questions at once: ask again"),
            Err(TrySendError::Disconnected(task)) => {
                return refuse(task, "the thread for questions has ended: ask again");
            }
        }
        self.thread = Some(sender);
    }
}

fn refuse(task: Task, why: &str) {
    let _ = task.answer.send(Reply::Refused(why.to_owned()));
}

fn begin(pins: Pins) -> std::io::Result<SyncSender<Task>> {
    let (sender, receiver) = sync_channel(WAITING);
    thread::Builder::new()
        .name("questions".to_owned())
        .spawn(move || serve(VerdictAsker::new(pins), &receiver))?;
    Ok(sender)
}

/// Answers until the daemon ends.
fn serve(mut asker: VerdictAsker, tasks: &Receiver<Task>) {
    loop {
        let task = match tasks.recv_timeout(KEPT) {
            Ok(task) => task,
            Err(RecvTimeoutError::Timeout) => {
                debug!("the copy of the programs for questions is unloaded");
                asker.release();
                // Nothing is loaded, so there is nothing to unload.
                match tasks.recv() {
                    Ok(task) => task,
                    Err(_) => return,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let answers = asker.ask(&task.openings, task.exceptions);
        if let Err(error) = &answers {
            info!("a question has no answer: {error}");
        }
        // The client may be gone by now.
        let _ = task.answer.send(Reply::from_result(answers.map_err(anyhow::Error::from)));
    }
}
