//! Disjoint pieces of one output matrix, one for each thread: columns `from..to` of every row.

use super::buffer::Plain;
use std::marker::PhantomData;
use std::ops::Range;

/// A matrix `[n_rows, width]` whose columns several threads may fill, each its own.
pub struct Shared<'a, T = f32> {
    start: *mut T,
    n_rows: usize,
    width: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: pieces are handed out by `stripe`, whose callers promise that they are disjoint.
unsafe impl<T: Plain + Send> Sync for Shared<'_, T> {}
// SAFETY: it is a mutable borrow of plain numbers.
unsafe impl<T: Plain + Send> Send for Shared<'_, T> {}

impl<'a, T: Plain> Shared<'a, T> {
    /// Shares a matrix of rows of `width` numbers.
    pub fn new(data: &'a mut [T], width: usize) -> Self {
        let n_rows = data.len().checked_div(width).unwrap_or(0);
        Shared { start: data.as_mut_ptr(), n_rows, width, life: PhantomData }
    }

    /// The same from its first number.
    ///
    /// # Safety
    /// `n_rows * width` numbers follow `start`; for 'a nobody touches them but through pieces of
    /// this or of another `Shared`, which do not overlap.
    pub unsafe fn of(start: *mut T, n_rows: usize, width: usize) -> Self {
        Shared { start, n_rows, width, life: PhantomData }
    }

    /// Columns of every row.
    ///
    /// # Safety
    /// No other live stripe of this matrix has one of these columns.
    pub unsafe fn stripe(&self, columns: Range<usize>) -> Stripe<'_, T> {
        // SAFETY: the caller's promise covers all rows.
        unsafe { self.piece(0..self.n_rows, columns) }
    }

    /// Some columns of some rows, numbered from 0 in the piece.
    ///
    /// # Safety
    /// No other live piece of this matrix overlaps it.
    pub unsafe fn piece(&self, rows: Range<usize>, columns: Range<usize>) -> Stripe<'_, T> {
        let columns = columns.start.min(self.width)..columns.end.min(self.width);
        let rows = rows.start.min(self.n_rows)..rows.end.min(self.n_rows);
        Stripe { matrix: self, rows, columns }
    }

    /// `len` values from `at` on.
    ///
    /// # Safety
    /// No other live piece of this matrix overlaps them.
    #[allow(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub unsafe fn line(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at + len <= self.n_rows * self.width, "line outside the matrix");
        // SAFETY: inside the borrowed slice by the assertion; alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }

    /// One whole row.
    ///
    /// # Safety
    /// No other live stripe or row of this matrix overlaps it.
    #[allow(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub unsafe fn row(&self, row: usize) -> &mut [T] {
        assert!(row < self.n_rows, "row outside the matrix");
        // SAFETY: inside the borrowed slice by the assertion; alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width), self.width) }
    }
}

/// The columns of one thread.
pub struct Stripe<'a, T = f32> {
    matrix: &'a Shared<'a, T>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<T: Plain> Stripe<'_, T> {
    /// Columns in it.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Rows in it.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Its part of a row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows.len(), "row outside the stripe");
        let row = self.rows.start + row;
        // SAFETY: row and columns lie in the matrix; the stripe alone may touch them.
        unsafe {
            let at = self.matrix.start.add(row * self.matrix.width + self.columns.start);
            std::slice::from_raw_parts_mut(at, self.columns.len())
        }
    }
}
