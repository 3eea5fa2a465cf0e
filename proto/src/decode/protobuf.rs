//! A reader of protobuf fields that allocates nothing: it lends slices of the input.
//!
//! Generated types would turn two hostile bytes into a hundred bytes of memory, so messages of unknown origin with
//! repeated sub-messages are walked with this reader. Invariant: it never reads outside its slice, whatever the length
//! fields say, and after an error it yields nothing more.

use super::error::DecodeError;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(crate) fn double(self) -> Option<f64> {
        match self {
            Value::Fixed64(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }
}

/// The fields of one message, in the order of the input.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or("it ends inside a number")?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                return Err("a number has more than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits")
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or("it ends inside a fixed number")?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), &'static str> {
        let key = self.varint()?;
        let number =
            u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n)).ok_or("a field number is bad")?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| "a length is past the end")?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or("a length is past the end")?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take()?)),
            _ => return Err("a wire type is not known"),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.field().map_err(|detail| {
            self.rest = &[];
            DecodeError::Protobuf { message: self.message, detail: detail.to_owned() }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<(u32, Value<'_>), DecodeError>> {
        Fields::new("test", bytes).collect()
    }

    #[test]
    fn fields_of_every_wire_type_are_read_in_order() {
        let bytes = [8, 0xac, 2, 0x12, 1, b'x', 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        let fields: Result<Vec<_>, _> = read(&bytes).into_iter().collect();
        let expected =
            vec![(1, Value::Varint(300)), (2, Value::Bytes(b"x")), (3, Value::Fixed32(1)), (4, Value::Fixed64(2))];
        assert_eq!(fields, Ok(expected));
    }

    #[test]
    fn a_lying_length_or_an_endless_number_is_one_error_and_the_end() {
        for bytes in [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1][..], &[8, 0x80], &[0xff; 11], &[0], &[0x0b], &[0x0d, 1]]
        {
            let fields = read(bytes);
            assert!(matches!(fields.last(), Some(Err(DecodeError::Protobuf { message: "test", .. }))), "{bytes:?}");
            assert_eq!(fields.iter().filter(|field| field.is_err()).count(), 1, "{bytes:?}");
        }
    }
}
