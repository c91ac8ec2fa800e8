//! Conditions as kstatus, `kubectl wait` and Argo CD read them: of Ready, Reconciling and Stalled
//! exactly one is True (INVARIANTS S3).

/// Which of the three is True.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What the spec wants is what serves.
    Ready,
    /// It is on its way, or waits for a person.
    Reconciling,
    /// It failed; without a person it stays as it is.
    Stalled,
}

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl Value {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Value {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// The conditions Ready, Reconciling and Stalled of a state: type, status, reason, message.
#[must_use]
pub fn of(state: State, reason: &str, message: &str) -> Vec<(&'static str, Value, String, String)> {
    let ready = match state {
        State::Ready => Value::True,
        State::Reconciling => Value::Unknown,
        State::Stalled => Value::False,
    };
    let condition = |name, value| (name, value, reason.to_owned(), message.to_owned());
    vec![
        condition("Ready", ready),
        condition("Reconciling", (state == State::Reconciling).into()),
        condition("Stalled", (state == State::Stalled).into()),
    ]
}
