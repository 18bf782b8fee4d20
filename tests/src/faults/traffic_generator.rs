//! Packets sent from a machine again and again while something else happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pomguard_netlab::Namespace;

use super::Sender;

/// Frames per burst. A cable holds more, so that every frame reaches a program.
const BURST: usize = 32;

/// A thread that sends frames until it is stopped.
#[derive(Debug)]
pub struct TrafficGenerator {
    stop: Arc<AtomicBool>,
    offered: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TrafficGenerator {
    /// Sends the frames in turn from the machine's interface, about `per_second` a second.
    pub fn start(machine: &Namespace, frames: Vec<Vec<u8>>, per_second: u32) -> Self {
        let (stop, offered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pause = Duration::from_secs(BURST as u64) / per_second;
        let sender = Sender::at(machine);
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&offered));
        let thread = thread::spawn(move || {
            let mut frames = frames.iter().cycle();
            while !stopped.load(Ordering::Relaxed) {
                for frame in frames.by_ref().take(BURST) {
                    // A frame that the egress hook drops counts as offered, too.
                    sender.send(frame);
                }
                count.fetch_add(BURST as u64, Ordering::Relaxed);
                thread::sleep(pause);
            }
        });
        Self { stop, offered, thread: Some(thread) }
    }

    /// Returns the number of packets until now.
    pub fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// Stops the thread and returns the total number of packets.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.offered()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "a sender failed");
        }
    }
}

impl Drop for TrafficGenerator {
    fn drop(&mut self) {
        self.end();
    }
}
