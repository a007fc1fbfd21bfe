//! W3C Trace Context: `traceparent` is `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal (Trace Context, section 3.2).

/// The caller's `traceparent` where it is a good one, else a new one; `sampled` is the flag of a new one.
pub fn traceparent(header: Option<&str>, sampled: bool) -> String {
    match header.map(str::trim).filter(|value| is_valid(value)) {
        Some(value) => value.to_owned(),
        None => new(sampled),
    }
}

/// The `traceparent` of a record that a call causes: the call's own span goes between the caller's and the stages'.
pub(crate) fn of_record(header: Option<&str>, sampled: bool, record: &str) -> String {
    let caller = traceparent(header, sampled);
    match caller.ends_with("-01") {
        true => stage::trace::continue_from("ingest", Some(&caller), record)
            .traceparent()
            .to_owned(),
        // Nobody sees it: no span is made.
        false => caller,
    }
}

fn new(sampled: bool) -> String {
    // All zeros is not allowed (section 3.2.2.3); one bit set keeps clear of it.
    let trace = rand::random::<u128>() | 1;
    let span = rand::random::<u64>() | 1;
    format!("00-{trace:032x}-{span:016x}-0{}", u8::from(sampled))
}

/// Version 00 exactly, or a later version beginning the same way (section 3.2.4).
pub fn is_valid(value: &str) -> bool {
    let bytes = value.as_bytes();
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if bytes.len() < 55 || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
        return false;
    }
    let (version, trace, span, flags) = (&bytes[..2], &bytes[3..35], &bytes[36..52], &bytes[53..55]);
    let length_is_good = if version == b"00" {
        bytes.len() == 55
    } else {
        bytes.len() <= 256 && (bytes.len() == 55 || bytes[55] == b'-') && value.is_ascii()
    };
    length_is_good
        && version != b"ff"
        && [version, trace, span, flags].into_iter().all(hex)
        && trace.iter().any(|byte| *byte != b'0')
        && span.iter().any(|byte| *byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_is_kept_and_a_bad_one_replaced() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traceparent(Some(good), false), good);
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let made = traceparent(Some(bad), true);
            assert_ne!(made, bad);
            assert!(is_valid(&made) && made.ends_with("-01"), "{made}");
        }
        assert!(traceparent(None, false).ends_with("-00"));
    }
}
