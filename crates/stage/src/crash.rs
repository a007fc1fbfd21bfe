//! Crash points: named places where a test, or `FAILPOINTS` in a process built with the feature `failpoints`, makes
//! things go wrong.
//!
//! - `return`: the call fails there, as if it had passed: the transaction is undone and the batch tried again.
//! - `return(abort)`: the process dies there, without a word, as with SIGKILL.
//! - `sleep(MS)`, `pause`: it hangs there, for others to be killed meanwhile.

/// A crash point was told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

/// Passes, unless the crash point `name` was given an action.
pub fn point(name: &'static str) -> Result<(), Crashed> {
    // Without the feature the macro is nothing.
    let _ = name;
    fail::fail_point!(name, |argument: Option<String>| {
        if argument.as_deref() == Some("abort") {
            std::process::abort();
        }
        Err(Crashed)
    });
    Ok(())
}
