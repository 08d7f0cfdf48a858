//! The few messages of TensorBoard's protocol that scalars need, and the frame of a record.

use super::crc32c::masked;

/// Field numbers of `Event`, `Summary`, `Summary.Value` and `SessionLog` with their wire types
/// (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes), as one key byte each.
mod key {
    pub(super) const WALL_TIME: u8 = 1 << 3 | 1;
    pub(super) const STEP: u8 = 2 << 3;
    pub(super) const FILE_VERSION: u8 = 3 << 3 | 2;
    pub(super) const SUMMARY: u8 = 5 << 3 | 2;
    pub(super) const SESSION_LOG: u8 = 7 << 3 | 2;
    pub(super) const SUMMARY_VALUE: u8 = 1 << 3 | 2;
    pub(super) const TAG: u8 = 1 << 3 | 2;
    pub(super) const SIMPLE_VALUE: u8 = 2 << 3 | 5;
    pub(super) const STATUS: u8 = 1 << 3;
}

/// `SessionLog.START`: readers drop what they hold from this step on.
const STATUS_START: u8 = 1;

/// The first event of a file.
pub(super) fn file_version(wall_time: f64) -> Vec<u8> {
    let mut event = head(wall_time, 0);
    push_bytes(&mut event, key::FILE_VERSION, b"brain.Event:2");
    event
}

/// Scalars of one step.
pub(super) fn scalars(wall_time: f64, step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut one = Vec::new();
        push_bytes(&mut one, key::TAG, tag.as_bytes());
        one.push(key::SIMPLE_VALUE);
        one.extend((*value as f32).to_le_bytes());
        push_bytes(&mut summary, key::SUMMARY_VALUE, &one);
    }
    let mut event = head(wall_time, step);
    push_bytes(&mut event, key::SUMMARY, &summary);
    event
}

/// Training starts again before `step`: earlier events of that step and later ones are void.
pub(super) fn restart(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = head(wall_time, step);
    push_bytes(&mut event, key::SESSION_LOG, &[key::STATUS, STATUS_START]);
    event
}

/// One record: length, its checksum, data, its checksum.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// Length in bytes of the first record of `bytes`; `None` where it is not whole.
pub(super) fn whole_record(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    if bytes.get(8..12)? != masked(&length).to_le_bytes() {
        return None;
    }
    let end = usize::try_from(u64::from_le_bytes(length)).ok()?.checked_add(12)?;
    let whole = end.checked_add(4)?;
    let checksum = bytes.get(end..whole)?;
    (checksum == masked(&bytes[12..end]).to_le_bytes()).then_some(whole)
}

fn head(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = vec![key::WALL_TIME];
    event.extend(wall_time.to_le_bytes());
    // Protobuf leaves out a field that has its default value.
    if step > 0 {
        event.push(key::STEP);
        push_varint(&mut event, step);
    }
    event
}

fn push_bytes(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    push_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_seven_bits_a_byte() {
        let bytes = |value| {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            out
        };
        assert_eq!(bytes(127), [127]);
        assert_eq!(bytes(300), [0xac, 0x02]);
        assert_eq!(bytes(u64::MAX).len(), 10);
    }

    #[test]
    fn only_a_whole_record_counts() {
        let mut record = framed(b"some data");
        record.extend(b"next");
        assert_eq!(whole_record(&record), Some(25));
        assert_eq!(whole_record(&record[..24]), None);
        record[14] ^= 1;
        assert_eq!(whole_record(&record), None);
        assert_eq!(whole_record(&[]), None);
    }
}
