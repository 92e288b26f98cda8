//! Run lengths: PS3.5 annex G. The bytes of a sample stand in segments of their own, highest first.

/// The samples of one frame, of `n_bytes` bytes each.
pub(super) fn decode(frame: &[u8], n_pixels: usize, n_bytes: usize) -> Result<Vec<u16>, String> {
    let number = |at: usize| -> Option<usize> {
        let bytes = *frame.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let n_segments = number(0).filter(|_| frame.len() >= 64);
    let n_segments = n_segments.ok_or("expected a header of 64 bytes")?;
    if n_segments != n_bytes {
        return Err(format!("expected {n_bytes} segments, got {n_segments}"));
    }
    let mut samples = vec![0_u16; n_pixels];
    for segment in 0..n_segments {
        let begin = number(4 + 4 * segment).unwrap_or(0);
        let end = match segment + 1 == n_segments {
            true => frame.len(),
            false => number(8 + 4 * segment).unwrap_or(0),
        };
        let runs = frame.get(begin..end).filter(|_| begin >= 64);
        let runs = runs.ok_or_else(|| format!("segment {segment} lies outside the frame"))?;
        unpack(runs, &mut samples).map_err(|n_found| {
            format!("expected {n_pixels} bytes in segment {segment}, got {n_found}")
        })?;
    }
    Ok(samples)
}

/// Shifts the bytes of a segment into the samples; the number of bytes, if there are too few.
fn unpack(runs: &[u8], samples: &mut [u16]) -> Result<(), usize> {
    let (mut rest, mut at) = (runs, 0);
    while at < samples.len() {
        let Some((&control, after)) = rest.split_first() else {
            return Err(at);
        };
        rest = after;
        let mut shift_in = |byte: u8| {
            if let Some(sample) = samples.get_mut(at) {
                *sample = *sample << 8 | u16::from(byte);
                at += 1;
            }
        };
        match control {
            0..=127 => {
                let length = usize::from(control) + 1;
                let literal = rest.get(..length).unwrap_or(rest);
                literal.iter().copied().for_each(&mut shift_in);
                rest = rest.get(literal.len()..).unwrap_or(&[]);
            }
            128 => {}
            129..=255 => {
                let Some((&byte, after)) = rest.split_first() else {
                    return Err(at);
                };
                rest = after;
                (0..257 - usize::from(control)).for_each(|_| shift_in(byte));
            }
        }
    }
    Ok(())
}
