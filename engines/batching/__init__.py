"""The parts that engines with continuous batching share.

`EngineThread` runs a `Stepper`, which the engine supplies; `BatchingEngine` is the event loop's side of both;
a `Sequence` turns tokens into chunks; `WaitingQueue` is the order of admission.
"""
