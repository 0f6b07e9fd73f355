//! SHA-256, for comparing tables of pieces in one line. FIPS 180-4; constants from the primes.

fn root_bits(prime: u64, cube: bool) -> u32 {
    // The first 32 bits of the fraction of the root, by bisection on whole numbers.
    let scaled = u128::from(prime) << if cube { 96 } else { 64 };
    let (mut low, mut high) = (0_u128, 1_u128 << 37);
    while high - low > 1 {
        let middle = (low + high) / 2;
        let power = if cube { middle * middle * middle } else { middle * middle };
        if power <= scaled { low = middle } else { high = middle }
    }
    (low & 0xFFFF_FFFF) as u32
}

/// The digest in hexadecimal.
pub fn hex(data: &[u8]) -> String {
    let primes: Vec<u64> =
        (2..312_u64).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).collect();
    let k: Vec<u32> = primes.iter().map(|p| root_bits(*p, true)).collect();
    let mut h: Vec<u32> = primes.iter().take(8).map(|p| root_bits(*p, false)).collect();
    let mut message = data.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((data.len() as u64 * 8).to_be_bytes());
    for block in message.as_chunks::<64>().0 {
        let mut w: Vec<u32> =
            block.as_chunks::<4>().0.iter().map(|b| u32::from_be_bytes(*b)).collect();
        for t in 16..64 {
            let a: u32 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let b = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(w[t - 16].wrapping_add(a).wrapping_add(w[t - 7]).wrapping_add(b));
        }
        let mut s = h.clone();
        for t in 0..64 {
            let e = s[4].rotate_right(6) ^ s[4].rotate_right(11) ^ s[4].rotate_right(25);
            let choice = (s[4] & s[5]) ^ (!s[4] & s[6]);
            let one =
                s[7].wrapping_add(e).wrapping_add(choice).wrapping_add(k[t]).wrapping_add(w[t]);
            let a = s[0].rotate_right(2) ^ s[0].rotate_right(13) ^ s[0].rotate_right(22);
            let major = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
            s.rotate_right(1);
            s[4] = s[4].wrapping_add(one);
            s[0] = one.wrapping_add(a).wrapping_add(major);
        }
        for (sum, part) in h.iter_mut().zip(s) {
            *sum = sum.wrapping_add(part);
        }
    }
    h.iter().map(|word| format!("{word:08x}")).collect()
}

#[test]
fn sha256_of_abc() {
    let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hex(b"abc"), want);
}
