//! The one table of tensor types: id, name, block sizes, scalar dequantise. Knows no SIMD and no
//! device. A new type is one row here and one function in the family's file.

macro_rules! tensor_types {
    ($($name:ident = $id:literal, $len:literal values in $bytes:literal bytes;)*) => {
        /// A GGML tensor type: how the values of a weight row are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "the names are GGUF's own")]
        pub enum TensorType { $(#[doc = stringify!($name)] $name,)* }

        impl TensorType {
            /// Every type, by id.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$name,)*];

            /// The type behind a number in a file.
            #[must_use]
            pub fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(TensorType::$name),)* _ => None }
            }

            /// The number in a file.
            #[must_use]
            pub fn id(self) -> u32 {
                match self { $(TensorType::$name => $id,)* }
            }

            /// GGUF's name, such as `Q4_K`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(TensorType::$name => stringify!($name),)* }
            }

            /// Values in a block; 1 for plain floats. A row is a whole number of blocks.
            #[must_use]
            pub fn block_len(self) -> usize {
                match self { $(TensorType::$name => $len,)* }
            }

            /// Bytes of a block.
            #[must_use]
            pub fn block_bytes(self) -> usize {
                match self { $(TensorType::$name => $bytes,)* }
            }
        }
    };
}

tensor_types! {
    F32 = 0, 1 values in 4 bytes;
    F16 = 1, 1 values in 2 bytes;
    Q4_0 = 2, 32 values in 18 bytes;
    Q4_1 = 3, 32 values in 20 bytes;
    Q5_0 = 6, 32 values in 22 bytes;
    Q5_1 = 7, 32 values in 24 bytes;
    Q8_0 = 8, 32 values in 34 bytes;
    Q2_K = 10, 256 values in 84 bytes;
    Q3_K = 11, 256 values in 110 bytes;
    Q4_K = 12, 256 values in 144 bytes;
    Q5_K = 13, 256 values in 176 bytes;
    Q6_K = 14, 256 values in 210 bytes;
    Q8_K = 15, 256 values in 292 bytes;
    IQ2_XXS = 16, 256 values in 66 bytes;
    IQ2_XS = 17, 256 values in 74 bytes;
    IQ3_XXS = 18, 256 values in 98 bytes;
    IQ1_S = 19, 256 values in 50 bytes;
    IQ4_NL = 20, 32 values in 18 bytes;
    IQ3_S = 21, 256 values in 110 bytes;
    IQ2_S = 22, 256 values in 82 bytes;
    IQ4_XS = 23, 256 values in 136 bytes;
    IQ1_M = 29, 256 values in 56 bytes;
    BF16 = 30, 1 values in 2 bytes;
    TQ1_0 = 34, 256 values in 54 bytes;
    TQ2_0 = 35, 256 values in 66 bytes;
    MXFP4 = 39, 32 values in 17 bytes;
    NVFP4 = 40, 64 values in 36 bytes;
    Q1_0 = 41, 128 values in 18 bytes;
    Q2_0 = 42, 64 values in 18 bytes;
}

impl TensorType {
    /// Bytes of a row of `n` values; `None` unless `n` is a whole number of blocks, or on overflow.
    #[must_use]
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_len()) {
            return None;
        }
        (n / self.block_len()).checked_mul(self.block_bytes())
    }
}
