//! Distribution of a kernel's work over the threads of the current rayon pool.

use std::ops::Range;

/// Number of threads that a kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread only.
    One,
    /// All threads of the current rayon pool.
    All,
}

/// Pointer that several threads write through, each to its own elements.
#[derive(Clone, Copy)]
pub(crate) struct SendPtr<T>(pub(crate) *mut T);

// SAFETY: functions that create one pass it to threads that write to disjoint elements (panels of a product; heads and
// rows of an attention). They return after all threads have finished, and nothing reads the elements in between.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for SendPtr<T> {}

/// Splits `0..len` into one range for each thread, and calls `work` for each range.
pub(crate) fn for_each_range(len: usize, threads: Threads, work: impl Fn(Range<usize>) + Sync) {
    fn split(range: Range<usize>, parts: usize, work: &(impl Fn(Range<usize>) + Sync)) {
        if parts < 2 || range.len() < 2 {
            return work(range);
        }
        let middle = range.start + range.len() * (parts / 2) / parts;
        rayon::join(
            || split(range.start..middle, parts / 2, work),
            || split(middle..range.end, parts - parts / 2, work),
        );
    }
    match threads {
        Threads::One => work(0..len),
        Threads::All => split(0..len, rayon::current_num_threads(), &work),
    }
}

/// Calls `work` for each item, in parallel on the current rayon pool.
pub(crate) fn for_each_item<T: Send>(items: &mut [T], work: &(impl Fn(&mut T) + Sync)) {
    match items {
        [] => {}
        [item] => work(item),
        many => {
            let (left, right) = many.split_at_mut(many.len() / 2);
            rayon::join(|| for_each_item(left, work), || for_each_item(right, work));
        }
    }
}
