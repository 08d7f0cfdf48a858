//! A PNG file of red, green and blue, 8 bits each.

/// `pixels` holds `width` times `height` colours, row by row.
pub(super) fn encode(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    assert_eq!(pixels.len(), 3 * width * height, "three bytes for each pixel");
    let mut rows = Vec::with_capacity(pixels.len() + height);
    for (y, row) in pixels.chunks_exact(3 * width).enumerate() {
        // Filter 2: the difference to the row above, which is mostly nothing in a plot.
        rows.push(2);
        let above = |i: usize| if y == 0 { 0 } else { pixels[(y - 1) * 3 * width + i] };
        rows.extend(row.iter().enumerate().map(|(i, v)| v.wrapping_sub(above(i))));
    }
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut head = Vec::new();
    head.extend((width as u32).to_be_bytes());
    head.extend((height as u32).to_be_bytes());
    // 8 bits, colours, deflate, the standard filters, not interlaced.
    head.extend([8, 2, 0, 0, 0]);
    chunk(&mut file, b"IHDR", &head);
    chunk(&mut file, b"IDAT", &miniz_oxide::deflate::compress_to_vec_zlib(&rows, 7));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(name);
    file.extend(data);
    let sum = crc32(&file[start..]);
    file.extend(sum.to_be_bytes());
}

/// CRC-32 of ISO 3309, as the PNG specification asks.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Width, height and pixels of a file that [`encode`] wrote, every checksum held.
    pub(in super::super) fn decode(file: &[u8]) -> (usize, usize, Vec<u8>) {
        let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        let (width, height) = (number(16), number(20));
        let (mut at, mut data) = (8, Vec::new());
        while at < file.len() {
            let length = number(at);
            let body = &file[at + 4..at + 8 + length];
            assert_eq!(crc32(body) as usize, number(at + 8 + length));
            if body.starts_with(b"IDAT") {
                data.extend(&body[4..]);
            }
            at += 12 + length;
        }
        let rows = miniz_oxide::inflate::decompress_to_vec_zlib(&data).unwrap();
        let mut pixels: Vec<u8> = Vec::new();
        for row in rows.chunks_exact(3 * width + 1) {
            assert_eq!(row[0], 2);
            for v in &row[1..] {
                let above = pixels.len().checked_sub(3 * width).map_or(0, |i| pixels[i]);
                pixels.push(v.wrapping_add(above));
            }
        }
        (width, height, pixels)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let pixels: Vec<u8> = (0..3 * 7 * 5).map(|i| (i * 37 % 251) as u8).collect();
        assert_eq!(decode(&encode(7, 5, &pixels)), (7, 5, pixels));
        // The check value that the CRC's definition gives.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
