//! Changes to an input, from a seed: the same in every run, so that a finding comes again.

/// Words of the formats, for libFuzzer too.
const WORDS: &str = include_str!("../words.dict");

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The remainder is below a usize.
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// The words of a dictionary as libFuzzer reads it: one a line, in double quotes, with `\"`, `\\` and `\xNN`.
pub fn words() -> Vec<Vec<u8>> {
    let quoted = WORDS.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    quoted.map(unescaped).collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let [first, behind @ ..] = rest {
        let (byte, length) = match (first, behind) {
            (b'\\', [b'x', high, low, ..]) => {
                let hex = [*high, *low];
                let hex = std::str::from_utf8(&hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (hex.expect("two hexadecimal digits"), 4)
            }
            (b'\\', [escaped, ..]) => (*escaped, 2),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

/// `input` with one to eight changes; `other` is another input of the same kind.
pub fn changed(input: &[u8], other: &[u8], words: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(8) {
        change(&mut bytes, other, words, random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut Random) {
    let from = random.below(bytes.len() + 1);
    let to = (from + random.below(24)).min(bytes.len());
    match random.below(9) {
        0 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        1 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap_or_default();
        }
        2 => drop(bytes.drain(from..to)),
        3 => {
            let piece = bytes[from..to].to_vec();
            bytes.splice(to..to, piece);
        }
        4 => bytes.truncate(from),
        5 if !other.is_empty() => {
            let begin = random.below(other.len());
            let end = (begin + random.below(200)).min(other.len());
            bytes.splice(from..to, other[begin..end].iter().copied());
        }
        6 => {
            // A few hundred levels: deeper than any reader's own limit.
            let bracket = if random.below(2) == 0 { b'[' } else { b'(' };
            bytes.splice(from..from, std::iter::repeat_n(bracket, 1 + random.below(300)));
        }
        _ if !words.is_empty() => {
            let word = &words[random.below(words.len())];
            bytes.splice(from..to, word.iter().copied());
        }
        _ => {}
    }
}

/// Values that no harness writes, as JSON: deep, long, of numbers and characters at every edge.
pub fn hostile_values() -> Vec<Vec<u8>> {
    let deep =
        |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(100_000), close.repeat(100_000));
    let mut values: Vec<Vec<u8>> = [
        deep("[", "", "]"),
        deep(r#"{"content":"#, "1", "}"),
        "[".repeat(100_000),
        format!("\"{}\"", "x".repeat(1 << 20)),
        format!("\"{}\"", r"\u0000".repeat(50_000)),
        format!("\"{}\"", r"\ud83d".repeat(50_000)),
        format!("[{}0]", "{},".repeat(50_000)),
        format!(r#"[{}{{}}]"#, r#"{"type":"text","text":""},"#.repeat(20_000)),
        format!("{{{}\"x\":0}}", r#""a":1,"#.repeat(50_000)),
        "9".repeat(100_000),
        format!("-0.{}1e-{}", "0".repeat(50_000), "9".repeat(50_000)),
    ]
    .map(String::into_bytes)
    .into();
    values.extend(
        [r#""\ud800""#, r#""\udfff\ud800""#, r#""\u0000""#, "1e999", "-1e999", "1e-999", "-0", "18446744073709551616"]
            .map(|value| value.as_bytes().to_vec()),
    );
    values.extend([
        b"-9223372036854775809".to_vec(),
        b"\"\xff\xfe\"".to_vec(),
        b"\"\x00\"".to_vec(),
        b"\xed\xa0\x80".to_vec(),
    ]);
    values
}

/// `input` with each of these values put in for what stands behind its `at`-th colon; the old value goes to a field of its
/// own. `None` where there are not so many.
pub fn with_value(input: &[u8], at: usize, value: &[u8]) -> Option<Vec<u8>> {
    let place = input.windows(2).enumerate().filter(|(_, pair)| *pair == b"\":").map(|(at, _)| at + 2).nth(at)?;
    Some([&input[..place], value, b",\"rest\":", &input[place..]].concat())
}
