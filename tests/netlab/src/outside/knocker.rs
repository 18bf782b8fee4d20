//! The host at the far end.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Count, Segment, Tally,
    frames::{Endpoints, FIRST, Heard, Tcp, read},
    segment::{ALLOWED, DENIED},
};

/// Sent over a connection; the server echoes them.
const WORDS: &[u8] = b"Is anybody there?";
/// The time after which an unanswered SYN is repeated.
const REPEAT: Duration = Duration::from_secs(1);
/// The time between two knocks of a watch.
const WATCH: Duration = Duration::from_millis(100);
/// The time in which an answer to a denied knock may still come after an allowed one was answered, which
/// the server received later.
const QUIET: Duration = Duration::from_millis(300);
/// The first port that a knock comes from.
const FIRST_PORT: u16 = 20_000;

/// The way to the near end.
pub trait Cable: Send + Sync + 'static {
    /// Sends a frame. A cable that nobody holds at the near end takes any frame.
    fn send(&self, frame: &[u8]) -> io::Result<()>;

    /// Waits for the next frame and returns the frame's length. Fails with [`io::ErrorKind::WouldBlock`]
    /// if no frame comes within a tenth of a second.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A host at the far end of a cable: the known one and the stranger of the segment.
pub struct Knocker {
    shared: Arc<Shared>,
    ears: Option<JoinHandle<()>>,
}

struct Shared {
    cable: Box<dyn Cable>,
    segment: Segment,
    state: Mutex<State>,
    answered: Condvar,
    stopped: AtomicBool,
}

struct State {
    knocks: HashMap<u16, Knock>,
    next_port: u16,
    tally: Tally,
    watching: bool,
    next_watch: Instant,
    /// The error that ended the listening.
    error: Option<String>,
}

/// One attempt to reach a port of the server.
struct Knock {
    ends: Endpoints,
    allowed: bool,
    answered: bool,
}

/// The protocol of a knock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tcp,
    Udp,
}

impl Knocker {
    /// Starts a host at the far end of a cable.
    pub fn start(cable: impl Cable, segment: Segment) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            cable: Box::new(cable),
            segment,
            state: Mutex::new(State {
                knocks: HashMap::new(),
                next_port: FIRST_PORT,
                tally: Tally::default(),
                watching: false,
                next_watch: Instant::now(),
                error: None,
            }),
            answered: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let ears = thread::Builder::new().name("far-end".into()).spawn(move || own.listen())?;
        Ok(Self { shared, ears: Some(ears) })
    }

    /// Knocks once at everything, waits at most `patience` for the answers to allowed knocks, and returns the
    /// tally since the last returned tally.
    pub fn knock(&self, patience: Duration) -> io::Result<Tally> {
        let segment = self.shared.segment;
        let (server, known, stranger) = (segment.server(), segment.known(), segment.stranger());
        for family in 0..2 {
            self.shared.begin(known[family], server[family], DENIED, By::Tcp)?;
            self.shared.begin(stranger[family], server[family], ALLOWED, By::Tcp)?;
        }
        self.shared.begin(known[0], server[0], DENIED, By::Udp)?;
        let until = Instant::now() + patience;
        for (known, server) in known.into_iter().zip(server) {
            let port = self.shared.begin(known, server, ALLOWED, By::Tcp)?;
            self.shared.await_answer(port, until)?;
        }
        thread::sleep(QUIET);
        self.take()
    }

    /// Begins to knock ten times a second at the denied ports, until [`Self::rest`].
    pub fn watch(&self) {
        self.shared.state().watching = true;
    }

    /// Ends the watch, and returns the tally since the last returned tally.
    pub fn rest(&self) -> io::Result<Tally> {
        self.shared.state().watching = false;
        thread::sleep(QUIET);
        self.take()
    }

    fn take(&self) -> io::Result<Tally> {
        let mut state = self.shared.state();
        match &state.error {
            Some(error) => Err(io::Error::other(error.clone())),
            None => Ok(std::mem::take(&mut state.tally)),
        }
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(ears) = self.ears.take() {
            // The thread ends within a tenth of a second. A panic in that thread was shown when it happened.
            let _ = ears.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the first frame of a knock, and returns the port that the knock comes from.
    fn begin(&self, from: IpAddr, to: IpAddr, to_port: u16, by: By) -> io::Result<u16> {
        let allowed = to_port == ALLOWED && self.segment.known().contains(&from);
        let mut state = self.state();
        let from_port = state.next_port;
        state.next_port = from_port.checked_add(1).unwrap_or(FIRST_PORT);
        let ends = Endpoints { from, from_port, to, to_port };
        state.knocks.insert(from_port, Knock { ends, allowed, answered: false });
        state.tally.count(allowed).sent += 1;
        drop(state);
        let frame = match by {
            By::Tcp => self.segment.tcp(ends, Tcp::Syn),
            By::Udp => self.segment.udp(ends, WORDS),
        };
        self.send(frame)?;
        Ok(from_port)
    }

    fn send(&self, frame: Option<Vec<u8>>) -> io::Result<()> {
        self.cable.send(&frame.ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Waits for the answer to a knock, and repeats the knock meanwhile.
    fn await_answer(&self, port: u16, until: Instant) -> io::Result<()> {
        loop {
            let waiting = |state: &mut State| state.knocks.get(&port).is_some_and(|knock| !knock.answered);
            let (state, timeout) = self
                .answered
                .wait_timeout_while(self.state(), REPEAT, waiting)
                .unwrap_or_else(PoisonError::into_inner);
            let Some(knock) = state.knocks.get(&port) else { return Ok(()) };
            if !timeout.timed_out() || Instant::now() >= until {
                return Ok(());
            }
            let ends = knock.ends;
            drop(state);
            self.send(self.segment.tcp(ends, Tcp::Syn))?;
        }
    }

    fn listen(&self) {
        let mut buffer = vec![0; 65_536];
        while !self.stopped.load(Ordering::Relaxed) {
            let done = match self.cable.receive(&mut buffer) {
                Ok(length) => self.hear(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = done.and_then(|()| self.watch_if_due()) {
                self.state().error = Some(error.to_string());
                return;
            }
        }
    }

    fn watch_if_due(&self) -> io::Result<()> {
        let now = Instant::now();
        let mut state = self.state();
        if !state.watching || state.next_watch > now {
            return Ok(());
        }
        state.next_watch = now + WATCH;
        let family = usize::from(state.next_port.is_multiple_of(2));
        drop(state);
        self.begin(self.segment.known()[family], self.segment.server()[family], DENIED, By::Tcp)?;
        Ok(())
    }

    /// Processes a frame.
    fn hear(&self, frame: &[u8]) -> io::Result<()> {
        if let Some(answer) = self.segment.resolution(frame) {
            return self.cable.send(&answer);
        }
        let Some(heard) = read(frame) else { return Ok(()) };
        let (Heard::Tcp { to_port, .. } | Heard::Udp { to_port } | Heard::Refusal { to_port }) = heard;
        let mut state = self.state();
        let State { knocks, tally, .. } = &mut *state;
        let Some(knock) = knocks.get_mut(&to_port) else { return Ok(()) };
        let (ends, answer) = (knock.ends, knock.answer(heard));
        if answer.is_the_answer && !knock.answered {
            knock.answered = true;
            tally.count(knock.allowed).answered += 1;
        }
        drop(state);
        self.answered.notify_all();
        answer.reply.map_or(Ok(()), |reply| self.send(self.segment.tcp(ends, reply)))
    }
}

/// The far end's view of a message.
struct Answer {
    is_the_answer: bool,
    reply: Option<Tcp<'static>>,
}

impl Knock {
    fn answer(&self, heard: Heard<'_>) -> Answer {
        let (is_the_answer, reply) = match heard {
            Heard::Tcp { reset: true, .. } | Heard::Udp { .. } | Heard::Refusal { .. } => {
                (!self.allowed, None)
            }
            Heard::Tcp { syn_ack: true, sequence, .. } if self.allowed => {
                (false, Some(Tcp::Words(sequence.wrapping_add(1), WORDS)))
            }
            Heard::Tcp { words, .. } if self.allowed => {
                let echoed = words == WORDS;
                (echoed, echoed.then(|| Tcp::Reset(FIRST + 1 + WORDS.len() as u32)))
            }
            Heard::Tcp { acknowledged, .. } => (true, Some(Tcp::Reset(acknowledged))),
        };
        Answer { is_the_answer, reply }
    }
}

impl Tally {
    const fn count(&mut self, allowed: bool) -> &mut Count {
        if allowed { &mut self.allowed } else { &mut self.denied }
    }
}
