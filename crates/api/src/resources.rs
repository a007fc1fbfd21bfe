//! Resources: apply and list.
