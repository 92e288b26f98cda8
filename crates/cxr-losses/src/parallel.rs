use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Below this many elements a second thread costs more than it saves.
const WORTH_THREADS: usize = 1 << 17;

/// Runs `work(first_row, values, slopes)` over consecutive blocks of rows, on several threads when there is much to do.
///
/// A row's result depends on that row alone, so the number of threads cannot change a bit of it.
pub(crate) fn for_row_blocks<T: Send>(
    n_rows: usize,
    values: &mut [T],
    slopes: &mut [T],
    work: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) {
    let n_threads = match slopes.len() {
        0..WORTH_THREADS => 1,
        _ => thread::available_parallelism().map_or(1, NonZero::get),
    };
    if n_threads == 1 || n_rows < 2 {
        work(0, values, slopes);
        return;
    }
    let block = n_rows.div_ceil(n_threads);
    let values_per_row = values.len() / n_rows;
    let slopes_per_row = slopes.len() / n_rows;
    let blocks = values
        .chunks_mut(block * values_per_row)
        .zip(slopes.chunks_mut(block * slopes_per_row));
    let jobs: Vec<_> = blocks.map(|block| Mutex::new(Some(block))).collect();
    let run = &|index: usize| {
        let job = jobs.get(index).map(Mutex::lock);
        let job = job.and_then(|job| job.unwrap_or_else(PoisonError::into_inner).take());
        if let Some((values, slopes)) = job {
            work(index * block, values, slopes);
        }
    };
    thread::scope(|scope| {
        for index in 0..jobs.len() {
            let started = thread::Builder::new().spawn_scoped(scope, move || run(index));
            // A system that starts no more threads has this one.
            if started.is_err() {
                run(index);
            }
        }
    });
}
