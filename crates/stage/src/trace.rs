//! One message's way through all stages as one trace (W3C Trace Context).
//!
//! Each record that a stage works on gets a span whose parent is the span in the record's `traceparent`; what the stage
//! sends on carries the new span. Where nothing is exported, or the sender did not ask for this trace to be sampled, there
//! is no span to make: the id alone is derived, from the parent and the record, so that a record which is delivered twice
//! goes on under the same one.

use std::hash::{DefaultHasher, Hash, Hasher};

use data_encoding::HEXLOWER;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A record's own span, until this is dropped, and what goes into the `traceparent` of what it causes.
#[derive(Debug)]
pub struct RecordTrace {
    span: Span,
    traceparent: String,
}

impl RecordTrace {
    pub fn span(&self) -> &Span {
        &self.span
    }

    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// What to keep of it where somebody looks at this trace; absent for the many that nobody asked for.
    pub fn sampled(&self) -> Option<&str> {
        self.traceparent.ends_with("-01").then_some(&self.traceparent)
    }
}

/// Starts a trace with a stage's own work, which no record caused. The share `sample` (0 to 1) of all ids is sampled, always
/// the same ones, under the same trace: what is done again after a crash shows as the same.
pub fn begin(stage: &'static str, id: &str, sample: f64) -> RecordTrace {
    let start = started(stage, id);
    // 53 bits: what an `f64` holds exactly.
    let dice = (hash(&(id, 3)) >> 11) as f64 / (1_u64 << 53) as f64;
    match dice < sample {
        true => continue_from(stage, Some(&print(start.0, start.1, TraceFlags::SAMPLED)), id),
        false => continue_from(stage, None, id),
    }
}

/// Goes on from a record's `traceparent`; a record without a good one starts a trace, which is not sampled. `id` is what
/// tells the record from others (its `ce_id`).
pub fn continue_from(stage: &'static str, traceparent: Option<&str>, id: &str) -> RecordTrace {
    let Some(parent) = traceparent.and_then(parse) else {
        let (trace, span) = started(stage, id);
        return RecordTrace {
            span: Span::none(),
            traceparent: print(trace, span, TraceFlags::NOT_SAMPLED),
        };
    };
    let mut span = Span::none();
    if parent.is_sampled() {
        span = tracing::info_span!("record", stage, "otel.name" = stage);
        // Refused where no traces are exported.
        if span
            .set_parent(Context::new().with_remote_span_context(parent.clone()))
            .is_ok()
        {
            let context = span.context();
            let own = context.span().span_context().clone();
            if own.is_valid() && own.trace_id() == parent.trace_id() {
                return RecordTrace {
                    span,
                    traceparent: print(own.trace_id(), own.span_id(), own.trace_flags()),
                };
            }
        }
    }
    let own = derived(u64::from_be_bytes(parent.span_id().to_bytes()), stage, id);
    RecordTrace {
        span,
        traceparent: print(parent.trace_id(), own, parent.trace_flags()),
    }
}

/// The ids of a trace that begins with a record.
fn started(stage: &str, id: &str) -> (TraceId, SpanId) {
    let trace = u128::from(hash(&(id, 1))) << 64 | u128::from(hash(&(id, 2)));
    // Zero is no id.
    (TraceId::from(trace | 1), derived(0, stage, id))
}

fn derived(parent: u64, stage: &str, id: &str) -> SpanId {
    // Zero is no id.
    SpanId::from(hash(&(parent, stage, id)) | 1)
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn print(trace: TraceId, span: SpanId, flags: TraceFlags) -> String {
    let mut header = String::with_capacity(55);
    header.push_str("00-");
    HEXLOWER.encode_append(&trace.to_bytes(), &mut header);
    header.push('-');
    HEXLOWER.encode_append(&span.to_bytes(), &mut header);
    header.push('-');
    HEXLOWER.encode_append(&[flags.to_u8()], &mut header);
    header
}

/// `VERSION-TRACE-SPAN-FLAGS`; of a later version the parts that are known (Trace Context, section 3.2.4).
fn parse(header: &str) -> Option<SpanContext> {
    let mut parts = header.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    if !known || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_trace_goes_on_under_a_new_span() {
        let first = continue_from("segmenter", Some(PARENT), "e1");
        assert!(first.traceparent().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(first.sampled().is_some_and(|kept| kept != PARENT));
        let again = continue_from("segmenter", Some(PARENT), "e1");
        assert_eq!(first.traceparent(), again.traceparent(), "delivered twice, one span id");
        assert_ne!(
            first.traceparent(),
            continue_from("segmenter", Some(PARENT), "e2").traceparent()
        );
        assert_ne!(
            first.traceparent(),
            continue_from("renderer", Some(PARENT), "e1").traceparent()
        );
    }

    #[test]
    fn the_share_asked_for_is_sampled_and_always_the_same() {
        let traces = |sample| -> Vec<String> {
            let ids = (0..1_000).map(|number| format!("m{number}"));
            ids.map(|id| begin("segmenter", &id, sample).traceparent().to_owned())
                .collect()
        };
        let sampled = |traces: &[String]| traces.iter().filter(|trace| trace.ends_with("-01")).count();
        assert_eq!((sampled(&traces(0.0)), sampled(&traces(1.0))), (0, 1_000));
        let tenth = traces(0.1);
        assert!((50..200).contains(&sampled(&tenth)), "{}", sampled(&tenth));
        assert_eq!(tenth, traces(0.1));
        assert!(tenth.iter().all(|trace| parse(trace).is_some()));
    }

    #[test]
    fn a_bad_parent_starts_a_trace_that_is_not_sampled() {
        for bad in [None, Some("nonsense"), Some("00-0-0-01"), Some(&PARENT[..54])] {
            let trace = continue_from("segmenter", bad, "e1");
            assert_eq!((trace.traceparent().len(), trace.sampled()), (55, None));
            assert!(parse(trace.traceparent()).is_some_and(|context| !context.is_sampled()));
        }
    }
}
