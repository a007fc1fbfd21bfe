//! How a command ends when it does not simply succeed. The codes are part of the public interface.

use std::fmt;

pub const DONE: u8 = 0;
/// The answer is no, a check failed, or something went wrong.
pub const NO: u8 = 1;
/// Bad usage; clap's own mistakes end with it too.
pub const USAGE: u8 = 2;
/// Bad settings (sysexits' EX_CONFIG is 78; 64 is what is promised).
pub const SETTINGS: u8 = 64;
/// A server cannot be reached.
pub const UNREACHABLE: u8 = 69;

/// Why a command failed, and its exit code. An empty message prints nothing: all was said before.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
    /// What a server answered, where one did.
    pub status: Option<u16>,
}

impl Failure {
    pub fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure {
            code,
            message: message.to_string(),
            status: None,
        }
    }

    pub fn no(message: impl fmt::Display) -> Failure {
        Failure::new(NO, message)
    }

    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(USAGE, message)
    }

    pub fn settings(message: impl fmt::Display) -> Failure {
        Failure::new(SETTINGS, message)
    }

    pub fn unreachable(message: impl fmt::Display) -> Failure {
        Failure::new(UNREACHABLE, message)
    }
}

impl From<crate::settings::SettingsError> for Failure {
    fn from(error: crate::settings::SettingsError) -> Self {
        Failure::settings(error)
    }
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
