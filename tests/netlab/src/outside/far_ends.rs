//! Knocks on request of the server, over a stream that is not a network.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    io::{BufRead, BufReader, Read, Write},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Error, Result, bail};

use super::{Knocker, Tally};

/// A request of the server, with the name of the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
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
            Self::Knock(card, patience) => write!(out, "knock {card} {}", patience.as_millis()),
            Self::Watch(card) => write!(out, "watch {card}"),
            Self::Rest(card) => write!(out, "rest {card}"),
        }
    }
}

impl FromStr for Request {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["knock", card, patience] => {
                let patience = patience.parse().with_context(|| format!("not a duration: {patience:?}"))?;
                Ok(Self::Knock(card.to_owned(), Duration::from_millis(patience)))
            }
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

    /// Answers one request.
    pub fn serve(&self, request: &Request) -> Result<Tally> {
        let (Request::Knock(card, _) | Request::Watch(card) | Request::Rest(card)) = request;
        let knocker = self.0.get(card).with_context(|| format!("no far end of {card}"))?;
        match request {
            Request::Knock(_, patience) => Ok(knocker.knock(*patience)?),
            Request::Watch(_) => {
                knocker.watch();
                Ok(Tally::default())
            }
            Request::Rest(_) => Ok(knocker.rest()?),
        }
    }

    /// Answers requests, a line for a line, until the stream ends.
    pub fn serve_all(&self, from: impl Read, mut to: impl Write) -> Result<()> {
        for line in BufReader::new(from).lines() {
            let line = line.context("the server's stream")?;
            let answer = line.parse().and_then(|request| self.serve(&request));
            match answer {
                Ok(tally) => writeln!(to, "{tally}"),
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
        ] {
            assert_eq!(request.to_string().parse::<Request>().unwrap(), request);
        }
        "knock vmxnet3".parse::<Request>().unwrap_err();
    }
}
