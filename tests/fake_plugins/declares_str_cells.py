from harness import declare_implementation

declare_implementation("one-cell", framework="numpy", cells="gru", factory="a:b")
