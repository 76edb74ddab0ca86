//! What a user sees and does on the pages of the product.
