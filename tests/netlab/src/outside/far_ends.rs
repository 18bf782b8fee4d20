//! Knocks on request of the server, and stops and restores the server's machine, over a stream that is not a
//! network.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    io::{BufRead, BufReader, Read, Write},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Error, Result, bail};

use super::{Knocker, Tally};

/// The emulator in which the server runs.
pub trait Emulator {
    /// Stops the machine for this time. No clock of the machine moves meanwhile.
    fn pause(&self, time: Duration) -> Result<()>;
    /// Saves the state of the machine.
    fn save(&self) -> Result<()>;
    /// Returns the machine to the saved state.
    fn restore(&self) -> Result<()>;
    /// Adds a processor to the machine.
    fn plug(&self) -> Result<()>;
}

/// The answer to [`Request::Save`] at the time of the request.
pub const SAVED: &str = "saved";
/// The answer to [`Request::Save`] after [`Request::Restore`]: the server waits for the first answer again.
pub const RESTORED: &str = "restored";
/// The answer to [`Request::Pause`].
pub const PAUSED: &str = "paused";
/// The answer to [`Request::Plug`].
pub const PLUGGED: &str = "plugged";

/// A request of the server, with the name of the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Stop the machine for this time.
    Pause(Duration),
    /// Save the state of the machine.
    Save,
    /// Return the machine to the saved state.
    Restore,
    /// Add a processor to the machine.
    Plug,
    /// Knock once at everything, wait at most this long, and report the tally.
    Knock(String, Duration),
    /// Begin to watch.
    Watch(String),
    /// End the watch, and report the tally.
    Rest(String),
}

impl Display for Request {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(time) => write!(out, "pause {}", time.as_millis()),
            Self::Save => out.write_str("save"),
            Self::Restore => out.write_str("restore"),
            Self::Plug => out.write_str("plug"),
            Self::Knock(card, patience) => write!(out, "knock {card} {}", patience.as_millis()),
            Self::Watch(card) => write!(out, "watch {card}"),
            Self::Rest(card) => write!(out, "rest {card}"),
        }
    }
}

impl FromStr for Request {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let time = |text: &str| -> Result<Duration> {
            Ok(Duration::from_millis(text.parse().with_context(|| format!("not a duration: {text:?}"))?))
        };
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["pause", length] => Ok(Self::Pause(time(length)?)),
            ["save"] => Ok(Self::Save),
            ["restore"] => Ok(Self::Restore),
            ["plug"] => Ok(Self::Plug),
            ["knock", card, patience] => Ok(Self::Knock(card.to_owned(), time(patience)?)),
            ["watch", card] => Ok(Self::Watch(card.to_owned())),
            ["rest", card] => Ok(Self::Rest(card.to_owned())),
            _ => bail!("not a request: {line:?}"),
        }
    }
}

/// The far ends of several cards, by the cards' names.
pub struct FarEnds(BTreeMap<String, Knocker>);

impl FarEnds {
    /// Creates a scratch for these far ends.
    #[must_use]
    pub fn new(knockers: impl IntoIterator<Item = (String, Knocker)>) -> Self {
        Self(knockers.into_iter().collect())
    }

    /// Answers one request for a tally.
    pub fn serve(&self, request: &Request) -> Result<Tally> {
        let (Request::Knock(card, _) | Request::Watch(card) | Request::Rest(card)) = request else {
            bail!("no request for a tally: {request}");
        };
        let knocker = self.0.get(card).with_context(|| format!("no far end of {card}"))?;
        match request {
            Request::Knock(_, patience) => Ok(knocker.knock(*patience)?),
            Request::Watch(_) => {
                knocker.watch();
                Ok(Tally::default())
            }
            _ => Ok(knocker.rest()?),
        }
    }

    /// Returns the answer to any request, in one line.
    fn answer(&self, request: &Request, emulator: &impl Emulator) -> Result<String> {
        match request {
            Request::Pause(time) => emulator.pause(*time).map(|()| PAUSED.to_owned()),
            Request::Save => emulator.save().map(|()| SAVED.to_owned()),
            Request::Restore => emulator.restore().map(|()| RESTORED.to_owned()),
            Request::Plug => emulator.plug().map(|()| PLUGGED.to_owned()),
            _ => Ok(self.serve(request)?.to_string()),
        }
    }

    /// Answers requests, a line for a line, until the stream ends.
    pub fn serve_all(&self, from: impl Read, mut to: impl Write, emulator: &impl Emulator) -> Result<()> {
        for line in BufReader::new(from).lines() {
            let line = line.context("the server's stream")?;
            let answer = line.parse().and_then(|request| self.answer(&request, emulator));
            match answer {
                Ok(answer) => writeln!(to, "{answer}"),
                Err(error) => writeln!(to, "fault: {error:#}"),
            }
            .context("the server's stream")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Request;

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        for request in [
            Request::Knock("vmxnet3".into(), Duration::from_millis(1_500)),
            Request::Watch("virtio_net".into()),
            Request::Rest("veth".into()),
            Request::Pause(Duration::from_secs(6)),
            Request::Save,
            Request::Restore,
            Request::Plug,
        ] {
            assert_eq!(request.to_string().parse::<Request>().unwrap(), request);
        }
        "knock vmxnet3".parse::<Request>().unwrap_err();
    }
}
