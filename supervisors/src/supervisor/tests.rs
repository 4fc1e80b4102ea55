//! The supervisor against Erlang/OTP: 1,800 recorded scenarios, each given to the state machine
//! alone and to running supervisors; and random scenarios, on which the two have to agree.

mod faults;
mod flat;
mod law;
mod live;
mod machines;
mod nested;
mod scenario;
mod world;
