//! The framing of `application/vnd.amazon.eventstream`.
//!
//! ```text
//! u32 BE total length   u32 BE length of headers   u32 BE CRC32 of the 8 bytes before
//! headers: u8 name length, name, u8 7 (string), u16 BE value length, value
//! payload               u32 BE CRC32 of everything before
//! ```

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An event with a JSON payload.
pub(crate) fn event(kind: &str, payload: &[u8]) -> Vec<u8> {
    message(&[(":message-type", "event"), (":event-type", kind), (":content-type", CONTENT_TYPE)], payload)
}

/// An exception; it ends the stream.
pub(crate) fn exception(kind: &str, payload: &[u8]) -> Vec<u8> {
    message(&[(":message-type", "exception"), (":exception-type", kind), (":content-type", CONTENT_TYPE)], payload)
}

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        // Names and values are the short constants above and exception names.
        head.push(u8::try_from(name.len()).unwrap_or(0));
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let mut out = Vec::with_capacity(16 + head.len() + payload.len());
    let total = u32::try_from(16 + head.len() + payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_published_layout() {
        let bytes = message(&[("a", "bc")], b"{}");
        let expected_head = [0, 0, 0, 25, 0, 0, 0, 7];
        assert_eq!(bytes[..8], expected_head);
        assert_eq!(bytes[8..12], crc32fast::hash(&expected_head).to_be_bytes());
        assert_eq!(&bytes[12..21], &[1, b'a', 7, 0, 2, b'b', b'c', b'{', b'}']);
        assert_eq!(bytes[21..], crc32fast::hash(&bytes[..21]).to_be_bytes());
    }
}
