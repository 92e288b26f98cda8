//! JPEG-LS, lossless and near-lossless: a decoder of grey images after ITU-T T.87 (ISO/IEC 14495-1).
//!
//! Names are the recommendation's: `Ra`, `Rb`, `Rc`, `Rd` are the neighbours left, above, above left and above right;
//! `A`, `B`, `C`, `N` what a context remembers. Section numbers refer to its annex A. Of the format's options, DICOM
//! files use neither mapping tables, point transforms nor restart intervals; those are errors.

use super::pixels::Samples;

/// How long a run that one bit announces is, by how well runs went before: 2^J (table A.1).
const J: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];
const REGULAR_CONTEXTS: usize = 365;

/// Decodes a stream of a grey image of this size.
pub(super) fn decode(stream: &[u8], width: u16, height: u16) -> Result<Samples, String> {
    let header = Header::read(stream)?;
    if (header.width, header.height) != (width, height) {
        return Err(format!(
            "expected a frame of {width}×{height} pixels, got {}×{}",
            header.width, header.height
        ));
    }
    let scan = stream.get(header.scan_at..).unwrap_or(&[]);
    let mut scan = Scan::new(header.coding, scan);
    let width = usize::from(width);
    let mut words = vec![0_u16; width * usize::from(height)];
    // A line with its neighbours: one sample before it and one behind it.
    let mut above = vec![0_i32; width + 2];
    let mut line = vec![0_i32; width + 2];
    for row in words.chunks_exact_mut(width) {
        scan.line(&mut above, &mut line, width)?;
        for (word, &sample) in row.iter_mut().zip(line.iter().skip(1)) {
            *word = sample as u16;
        }
        std::mem::swap(&mut above, &mut line);
    }
    Ok(Samples {
        words,
        precision: header.precision,
        signed: false,
    })
}

/// Height and width that a stream declares.
struct Header {
    precision: u32,
    width: u16,
    height: u16,
    coding: Coding,
    scan_at: usize,
}

/// The parameters of a scan.
#[derive(Clone, Copy)]
struct Coding {
    max_value: i32,
    near: i32,
    thresholds: [i32; 3],
    reset: i32,
}

impl Header {
    fn read(stream: &[u8]) -> Result<Self, String> {
        const CUT: &str = "the stream ends in its header";
        if !stream.starts_with(&[0xff, 0xd8]) {
            return Err("expected a JPEG-LS stream".to_owned());
        }
        let mut at = 2;
        let mut frame = None;
        let mut preset = [0_u16; 5];
        loop {
            let &[first, marker] = stream.get(at..).and_then(<[u8]>::first_chunk).ok_or(CUT)?;
            if first != 0xff {
                return Err(format!("expected a marker, got 0x{first:02x}"));
            }
            if marker == 0xff {
                // A marker may be filled up in front.
                at += 1;
                continue;
            }
            let length = stream
                .get(at + 2..)
                .and_then(<[u8]>::first_chunk)
                .ok_or(CUT)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let body = stream
                .get(at + 4..(at + 2).saturating_add(length))
                .ok_or(CUT)?;
            at += 2 + length;
            let word = |index: usize| -> Result<u16, String> {
                let bytes = body.get(index..).and_then(<[u8]>::first_chunk).ok_or(CUT)?;
                Ok(u16::from_be_bytes(*bytes))
            };
            match marker {
                0xf7 => {
                    let (precision, n_components) = (body.first().ok_or(CUT)?, body.get(5));
                    if n_components != Some(&1) || !(2..=16).contains(precision) {
                        return Err("expected one component of 2 to 16 bits".to_owned());
                    }
                    frame = Some((u32::from(*precision), word(1)?, word(3)?));
                }
                0xf8 => match body.first() {
                    Some(1) => {
                        for (index, value) in preset.iter_mut().enumerate() {
                            *value = word(1 + 2 * index)?;
                        }
                    }
                    _ => return Err("mapping tables are not read".to_owned()),
                },
                0xdd if body.iter().any(|&byte| byte != 0) => {
                    return Err("restart intervals are not read".to_owned());
                }
                0xda => {
                    let (precision, height, width) = frame.ok_or("expected a frame first")?;
                    let &[1, _, 0, near, 0, 0] = body else {
                        return Err(
                            "expected a scan of one component without mapping or point transform"
                                .to_owned(),
                        );
                    };
                    return Ok(Self {
                        precision,
                        width,
                        height,
                        coding: Coding::new(precision, i32::from(near), preset)?,
                        scan_at: at,
                    });
                }
                0xd8 | 0xd9 | 0xc0..=0xcf => {
                    return Err(format!(
                        "expected a JPEG-LS frame, got the marker 0x{marker:02x}"
                    ));
                }
                _ => {}
            }
        }
    }
}

impl Coding {
    /// With the defaults of section C.2.4.1.1 where a preset value is 0.
    fn new(precision: u32, near: i32, preset: [u16; 5]) -> Result<Self, String> {
        let [max_value, t1, t2, t3, reset] = preset.map(i32::from);
        let largest = (1 << precision) - 1;
        let max_value = if max_value == 0 { largest } else { max_value };
        let clamp = |value: i32, least: i32| match value {
            value if value > max_value || value < least => least,
            value => value,
        };
        let (d1, d2, d3) = if max_value >= 128 {
            let factor = (max_value.min(4095) + 128) / 256;
            (
                factor + 2 + 3 * near,
                4 * factor + 3 + 5 * near,
                17 * factor + 4 + 7 * near,
            )
        } else {
            let factor = 256 / (max_value + 1);
            (
                (3 / factor + 3 * near).max(2),
                (7 / factor + 5 * near).max(3),
                (21 / factor + 7 * near).max(4),
            )
        };
        let d1 = clamp(d1, near + 1);
        let t1 = if t1 == 0 { d1 } else { t1 };
        let d2 = clamp(d2, t1);
        let t2 = if t2 == 0 { d2 } else { t2 };
        let d3 = clamp(d3, t2);
        let t3 = if t3 == 0 { d3 } else { t3 };
        let reset = if reset == 0 { 64 } else { reset };
        let sound = max_value <= largest
            && near <= (max_value / 2).min(255)
            && near < t1
            && t1 <= t2
            && t2 <= t3
            && t3 <= max_value
            && (3..=max_value.max(255)).contains(&reset);
        if !sound {
            return Err("its coding parameters contradict each other".to_owned());
        }
        Ok(Self {
            max_value,
            near,
            thresholds: [t1, t2, t3],
            reset,
        })
    }
}

#[derive(Clone, Copy)]
struct Context {
    a: i64,
    b: i32,
    c: i32,
    n: i32,
}

struct RunContext {
    a: i64,
    n: i32,
    /// How many errors were negative.
    n_negative: i32,
}

struct Scan<'a> {
    bits: Bits<'a>,
    coding: Coding,
    range: i32,
    step: i32,
    /// Bits of an error that is written as it is, and the longest code (section A.2.1).
    error_bits: u32,
    limit: u32,
    contexts: Vec<Context>,
    runs: [RunContext; 2],
    run_index: usize,
}

impl<'a> Scan<'a> {
    fn new(coding: Coding, bytes: &'a [u8]) -> Self {
        let ceil_log2 = |value: i32| i32::BITS - (value - 1).leading_zeros();
        let step = 2 * coding.near + 1;
        let range = (coding.max_value + 2 * coding.near) / step + 1;
        let sample_bits = ceil_log2(coding.max_value + 1).max(2);
        let a = i64::from(((range + 32) / 64).max(2));
        let run = || RunContext {
            a,
            n: 1,
            n_negative: 0,
        };
        Self {
            bits: Bits::new(bytes),
            coding,
            range,
            step,
            error_bits: ceil_log2(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
            contexts: vec![
                Context {
                    a,
                    b: 0,
                    c: 0,
                    n: 1
                };
                REGULAR_CONTEXTS
            ],
            runs: [run(), run()],
            run_index: 0,
        }
    }

    /// Decodes a line below `above`; both have a sample at either side.
    fn line(&mut self, above: &mut [i32], line: &mut [i32], width: usize) -> Result<(), String> {
        // Outside the image: left of a line the sample above its first, right of the line above its last (A.2.1).
        let at = |samples: &[i32], index: usize| samples.get(index).copied().unwrap_or(0);
        let last = at(above, width);
        if let Some(beyond) = above.get_mut(width + 1) {
            *beyond = last;
        }
        let first_above = at(above, 1);
        if let Some(before) = line.first_mut() {
            *before = first_above;
        }
        let mut x = 1;
        while x <= width {
            let (ra, rb) = (at(line, x - 1), at(above, x));
            let (rc, rd) = (at(above, x - 1), at(above, x + 1));
            let gradients = [rd - rb, rb - rc, rc - ra].map(|gradient| self.quantize(gradient));
            let sample = if gradients == [0; 3] {
                let length = self.run_length(width + 1 - x)?;
                let run = line.get_mut(x..x + length).unwrap_or(&mut []);
                run.fill(ra);
                x += length;
                if x > width {
                    break;
                }
                self.run_interruption(ra, at(above, x))?
            } else {
                self.regular(gradients, ra, rb, rc)?
            };
            if let Some(place) = line.get_mut(x) {
                *place = sample;
            }
            x += 1;
        }
        Ok(())
    }

    /// A.3.3.
    fn quantize(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.coding.thresholds;
        let size = gradient.abs();
        let region = if size <= self.coding.near {
            0
        } else if size < t1 {
            1
        } else if size < t2 {
            2
        } else if size < t3 {
            3
        } else {
            4
        };
        region * gradient.signum()
    }

    /// A.4 to A.6: a sample that is predicted by its neighbours.
    fn regular(&mut self, gradients: [i32; 3], ra: i32, rb: i32, rc: i32) -> Result<i32, String> {
        let number = 81 * gradients[0] + 9 * gradients[1] + gradients[2];
        let sign = number.signum();
        let Some(context) = self.contexts.get_mut(number.unsigned_abs() as usize) else {
            return Err("a context out of range".to_owned());
        };
        let predicted = if rc >= ra.max(rb) {
            ra.min(rb)
        } else if rc <= ra.min(rb) {
            ra.max(rb)
        } else {
            ra + rb - rc
        };
        let predicted = (predicted + sign * context.c).clamp(0, self.coding.max_value);
        let k = golomb_parameter(context.n, context.a);
        let mapped = self.bits.golomb(k, self.limit, self.error_bits)?;
        let half = (mapped >> 1) as i32;
        let is_swapped = self.coding.near == 0 && k == 0 && 2 * context.b <= -context.n;
        let error = match (is_swapped, mapped & 1 == 1) {
            (false, false) | (true, true) => half,
            (false, true) | (true, false) => -half - 1,
        };
        check_error(error, self.range)?;
        context.b += error * self.step;
        context.a += i64::from(error.abs());
        if context.n == self.coding.reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
        Ok(self.reconstruct(predicted, sign * error))
    }

    /// How many of the samples up to the line's end are like the one before (A.7.1).
    fn run_length(&mut self, remaining: usize) -> Result<usize, String> {
        let mut length = 0;
        loop {
            let j = J.get(self.run_index).copied().unwrap_or(0);
            if self.bits.take(1)? == 0 {
                length += self.bits.take(j)? as usize;
                return match length < remaining {
                    true => Ok(length),
                    false => Err("a run is longer than its line".to_owned()),
                };
            }
            let whole = 1 << j;
            if length + whole <= remaining {
                length += whole;
                self.run_index = (self.run_index + 1).min(J.len() - 1);
            } else {
                length = remaining;
            }
            if length == remaining {
                return Ok(length);
            }
        }
    }

    /// The sample that ends a run (A.7.2).
    fn run_interruption(&mut self, ra: i32, rb: i32) -> Result<i32, String> {
        let kind = i32::from((ra - rb).abs() <= self.coding.near);
        let j = J.get(self.run_index).copied().unwrap_or(0);
        let [different, alike] = &mut self.runs;
        let context = if kind == 1 { alike } else { different };
        let extra = if kind == 1 {
            i64::from(context.n >> 1)
        } else {
            0
        };
        let k = golomb_parameter(context.n, context.a + extra);
        let mapped = self.bits.golomb(k, self.limit - j - 1, self.error_bits)?;
        let sum = mapped as i32 + kind;
        let is_odd = sum & 1;
        let size = (sum + is_odd) / 2;
        check_error(size, self.range)?;
        let expects_negative = k != 0 || 2 * context.n_negative >= context.n;
        let error = if expects_negative == (is_odd == 1) {
            -size
        } else {
            size
        };
        context.n_negative += i32::from(error < 0);
        context.a += i64::from((mapped as i32 + 1 - kind) >> 1);
        if context.n == self.coding.reset {
            context.a >>= 1;
            context.n >>= 1;
            context.n_negative >>= 1;
        }
        context.n += 1;
        self.run_index = self.run_index.saturating_sub(1);
        Ok(match kind {
            1 => self.reconstruct(ra, error),
            _ => self.reconstruct(rb, error * (rb - ra).signum()),
        })
    }

    /// A.4.5: the error is modulo the range.
    fn reconstruct(&self, predicted: i32, error: i32) -> i32 {
        let Coding {
            max_value, near, ..
        } = self.coding;
        let sample = predicted + error * self.step;
        let sample = if sample < -near {
            sample + self.range * self.step
        } else if sample > max_value + near {
            sample - self.range * self.step
        } else {
            sample
        };
        sample.clamp(0, max_value)
    }
}

fn golomb_parameter(n: i32, a: i64) -> u32 {
    (0..32).find(|&k| i64::from(n) << k >= a).unwrap_or(32)
}

/// No encoder writes an error beyond the range: it would run the statistics off.
fn check_error(error: i32, range: i32) -> Result<(), String> {
    match error.abs() > range {
        true => Err("an error is out of range".to_owned()),
        false => Ok(()),
    }
}

/// Bits of a scan, highest first. Behind a byte of ones follows a byte of seven bits; anything else there is a marker,
/// where the scan ends (A.1).
struct Bits<'a> {
    bytes: &'a [u8],
    cache: u64,
    n_cached: u32,
    after_ones: bool,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            cache: 0,
            n_cached: 0,
            after_ones: false,
        }
    }

    fn fill(&mut self) {
        while self.n_cached <= 56 {
            let Some((&byte, rest)) = self.bytes.split_first() else {
                return;
            };
            let is_marker = byte == 0xff && rest.first().is_none_or(|&next| next >= 0x80);
            if is_marker || (self.after_ones && byte >= 0x80) {
                return;
            }
            let n_bits = if self.after_ones { 7 } else { 8 };
            self.cache |= u64::from(byte) << (64 - n_bits - self.n_cached);
            self.n_cached += n_bits;
            self.after_ones = byte == 0xff;
            self.bytes = rest;
        }
    }

    fn skip(&mut self, n_bits: u32) {
        self.cache = self.cache.checked_shl(n_bits).unwrap_or(0);
        self.n_cached -= n_bits;
    }

    /// Up to 32 bits.
    fn take(&mut self, n_bits: u32) -> Result<u32, String> {
        if n_bits == 0 {
            return Ok(0);
        }
        if self.n_cached < n_bits {
            self.fill();
        }
        if self.n_cached < n_bits || n_bits > 32 {
            return Err("the scan ends early".to_owned());
        }
        let value = (self.cache >> (64 - n_bits)) as u32;
        self.skip(n_bits);
        Ok(value)
    }

    /// A number whose code is at most `limit` bits long (A.5.3).
    fn golomb(&mut self, k: u32, limit: u32, error_bits: u32) -> Result<u32, String> {
        let longest = limit - error_bits - 1;
        let mut n_zeros = 0;
        loop {
            self.fill();
            let zeros = self.cache.leading_zeros().min(self.n_cached);
            n_zeros += zeros;
            if zeros < self.n_cached {
                self.skip(zeros + 1);
                break;
            }
            if self.n_cached == 0 || n_zeros > longest {
                return Err("the scan ends early".to_owned());
            }
            self.skip(zeros);
        }
        match n_zeros {
            _ if k > 24 => Err("a code is out of range".to_owned()),
            _ if n_zeros < longest => Ok((n_zeros << k) + self.take(k)?),
            _ if n_zeros == longest => Ok(self.take(error_bits)? + 1),
            _ => Err("a code is longer than allowed".to_owned()),
        }
    }
}
