//! What a user sees and does on the pages of the product, in the user's words.

mod job_page;

pub use job_page::JobPage;
