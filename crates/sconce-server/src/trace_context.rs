//! The trace that a request belongs to, as the header `traceparent` of W3C Trace Context says it.

use std::fmt;

/// The place of a request in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's identifier, not zero.
    pub trace_id: u128,
    /// The identifier of the caller's span, not zero.
    pub span_id: u64,
    /// True if the caller records the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads the value of a header `traceparent`: `version-trace-parent-flags` in hexadecimal digits. `None` if it is not
    /// valid; such a header is to be ignored (W3C Trace Context, section 3.2).
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.split('-');
        let version = hexadecimal(fields.next()?, 2)?;
        let trace_id = hexadecimal(fields.next()?, 32)?;
        let span_id = u64::try_from(hexadecimal(fields.next()?, 16)?).ok()?;
        let flags = hexadecimal(fields.next()?, 2)?;
        // Later versions may have further fields; version ff is forbidden.
        let known = version != 0xff && (version > 0 || fields.next().is_none());
        (known && trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// The trace's identifier, as logs show it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.trace_id)
    }
}

/// The number that a field of so many lower-case digits stands for.
fn hexadecimal(field: &str, digits: usize) -> Option<u128> {
    let valid = field.len() == digits && field.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(field, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_read() {
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let expected = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true);
        assert_eq!((context.trace_id, context.span_id, context.sampled), expected);
        assert_eq!(context.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = TraceContext::parse("01-0000000000000000000000000000000a-000000000000000b-02-what-comes-later");
        assert_eq!(later, Some(TraceContext { trace_id: 10, span_id: 11, sampled: false }));
    }

    #[test]
    fn a_header_that_is_not_valid_is_ignored() {
        for header in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
    }
}
