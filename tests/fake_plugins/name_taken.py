from harness import declare_task

declare_task("subtracting", factory="name_taken:Subtracting")
declare_task("adding", factory="name_taken:Subtracting")
