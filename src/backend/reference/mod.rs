//! The candle reference backend: each step as written, on f32.
