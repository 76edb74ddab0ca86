//! The one socket to the queue: when to connect, when to give it up, when to try again (`metaframe` 5.2).
//!
//! Only times and phases are here; what is said over the socket is `reduce`'s matter.

use dockframe_shared::Timestamp;
use dockframe_shared::protocol::ClientHello;

/// An attempt that is not open by then is given up.
pub const ATTEMPT_MS: i64 = 4_000;
/// `PING` again this long after a `PONG`.
pub const PING_MS: i64 = 5_000;
/// No `PONG` for this long after a `PING`: the socket is replaced.
pub const PONG_MS: i64 = 10_000;
/// An open socket that lives this long resets the pause.
pub const STABLE_MS: i64 = 5_000;
/// First pause: between these, at random.
const FIRST_PAUSE_MS: (f64, f64) = (1_000.0, 5_000.0);
const LONGEST_PAUSE_MS: f64 = 10_000.0;
const PAUSE_FACTOR: f64 = 1.3;

/// How the relay speaks on this socket; its first frame decides (`relay-protocol` 3.13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// Nothing came yet; nothing but `PING` may be sent.
    Unheard,
    Watch(ClientHello),
    /// A relay without watching: `listed` once its first full list came.
    Old {
        listed: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// There is no queue to connect to.
    Off,
    Connecting,
    Open(Speech),
    /// Between two attempts.
    Lost,
}

#[derive(Debug, Clone)]
pub struct Connection {
    pub phase: Phase,
    /// Numbers the sockets of this page; events of earlier ones are dropped.
    pub socket: u64,
    /// Since when there is no open socket.
    pub lost_since: Option<Timestamp>,
    pause_ms: Option<f64>,
}

impl Default for Connection {
    fn default() -> Self {
        Self { phase: Phase::Off, socket: 0, lost_since: None, pause_ms: None }
    }
}

impl Connection {
    /// A new attempt begins; returns its number.
    pub fn begin(&mut self, now: Timestamp) -> u64 {
        self.socket += 1;
        self.phase = Phase::Connecting;
        self.lost_since.get_or_insert(now);
        self.socket
    }

    pub fn opened(&mut self) {
        self.phase = Phase::Open(Speech::Unheard);
    }

    /// The relay has spoken: from here on the page may.
    pub fn heard(&mut self, speech: Speech) {
        self.phase = Phase::Open(speech);
        self.lost_since = None;
    }

    pub fn is_stable(&mut self) {
        self.pause_ms = None;
    }

    /// The socket is gone. Returns the pause before the next attempt; `random` is in 0..1.
    pub fn lost(&mut self, now: Timestamp, random: f64) -> i64 {
        self.phase = Phase::Lost;
        self.lost_since.get_or_insert(now);
        let (least, most) = FIRST_PAUSE_MS;
        let pause = match self.pause_ms {
            None => least + (most - least) * random.clamp(0.0, 1.0),
            Some(last) => (last * PAUSE_FACTOR).min(LONGEST_PAUSE_MS),
        };
        self.pause_ms = Some(pause);
        #[expect(clippy::cast_possible_truncation, reason = "at most ten thousand")]
        let millis = pause as i64;
        millis
    }

    /// No queue, or another one: what was is forgotten.
    pub fn reset(&mut self) {
        *self = Self { socket: self.socket + 1, ..Self::default() };
    }

    /// Whether changes and watches may be sent now.
    #[must_use]
    pub fn may_speak(&self) -> bool {
        matches!(&self.phase, Phase::Open(Speech::Watch(_) | Speech::Old { listed: true }))
    }

    #[must_use]
    pub fn watches(&self) -> bool {
        matches!(&self.phase, Phase::Open(Speech::Watch(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_seconds_and_never_end() {
        let mut connection = Connection::default();
        let now = Timestamp::from_millis(0);
        let pauses: Vec<i64> = (0..12).map(|_| connection.lost(now, 0.5)).collect();
        assert_eq!(pauses[0], 3_000);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses.last(), Some(&10_000));
        connection.is_stable();
        assert_eq!(connection.lost(now, 0.0), 1_000);
    }

    #[test]
    fn nothing_is_said_before_the_relay_has_spoken() {
        let mut connection = Connection::default();
        connection.begin(Timestamp::from_millis(0));
        connection.opened();
        assert!(!connection.may_speak());
        connection.heard(Speech::Old { listed: false });
        assert!(!connection.may_speak());
        connection.heard(Speech::Old { listed: true });
        assert!(connection.may_speak());
    }
}
