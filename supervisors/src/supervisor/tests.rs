//! The supervisor against Erlang/OTP: 1,800 recorded scenarios, each given to the state machine
//! alone and to running supervisors.

mod flat;
mod live;
mod nested;
mod scenario;
