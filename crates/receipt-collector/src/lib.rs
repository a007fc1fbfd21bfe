//! receipt-collector
