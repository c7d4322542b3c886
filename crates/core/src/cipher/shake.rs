//! SHAKE-128 (FIPS 202) for the accumulated test vectors only: the cryptographic library does not offer it, and a test
//! needs neither speed nor constant time.

pub(super) struct Shake128 {
    state: [u64; 25],
    at: usize,
}

const RATE: usize = 168;

impl Shake128 {
    pub(super) fn new() -> Self {
        Self { state: [0; 25], at: 0 }
    }

    /// The output stream of the empty input.
    pub(super) fn of_nothing() -> Self {
        let mut shake = Self::new();
        shake.finish();
        shake
    }

    pub(super) fn absorb(&mut self, input: &[u8]) {
        for byte in input {
            self.xor(self.at, *byte);
            self.at += 1;
            if self.at == RATE {
                self.permute();
            }
        }
    }

    pub(super) fn finish(&mut self) {
        self.xor(self.at, 0x1F);
        self.xor(RATE - 1, 0x80);
        self.permute();
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.squeeze())
    }

    /// A vector whose length is the next byte.
    pub(super) fn short_vec(&mut self) -> Vec<u8> {
        let length = self.squeeze();
        (0..length).map(|_| self.squeeze()).collect()
    }

    fn squeeze(&mut self) -> u8 {
        if self.at == RATE {
            self.permute();
        }
        let byte = self.state[self.at / 8].to_le_bytes()[self.at % 8];
        self.at += 1;
        byte
    }

    fn xor(&mut self, at: usize, byte: u8) {
        self.state[at / 8] ^= u64::from(byte) << (8 * (at % 8));
    }

    /// Keccak-f[1600], lanes as `state[x + 5 * y]`.
    fn permute(&mut self) {
        let mut lfsr = 1u8;
        for _ in 0..24 {
            let parity: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ self.state[x + 5 * y]));
            for (at, lane) in self.state.iter_mut().enumerate() {
                *lane ^= parity[(at + 4) % 5] ^ parity[(at % 5 + 1) % 5].rotate_left(1);
            }
            // Rotation and transposition in one walk over the 24 moving lanes.
            let (mut x, mut y, mut carried) = (1, 0, self.state[1]);
            for step in 0..24u32 {
                (x, y) = (y, (2 * x + 3 * y) % 5);
                let turned = carried.rotate_left((step + 1) * (step + 2) / 2 % 64);
                carried = std::mem::replace(&mut self.state[x + 5 * y], turned);
            }
            for row in self.state.as_chunks_mut::<5>().0 {
                let old = *row;
                for x in 0..5 {
                    row[x] = old[x] ^ (!old[(x + 1) % 5] & old[(x + 2) % 5]);
                }
            }
            for bit in 0..7 {
                if lfsr & 1 == 1 {
                    self.state[0] ^= 1 << ((1u32 << bit) - 1);
                }
                lfsr = (lfsr << 1) ^ (if lfsr & 0x80 == 0 { 0 } else { 0x71 });
            }
        }
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Shake128;

    #[test]
    fn the_stream_of_nothing_begins_as_published() {
        let start: [u8; 16] = Shake128::of_nothing().array();
        assert_eq!(hex::encode(start), "7f9c2ba4e88f827d616045507605853e");
    }
}
