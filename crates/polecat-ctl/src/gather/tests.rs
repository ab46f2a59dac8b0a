//! Facts from objects as the API server shows them.
