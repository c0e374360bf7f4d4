from harness import declare_task
from tasks.adding import Adding

declare_task("short-adding", factory="task_lacks_length:ShortAdding")


class ShortAdding(Adding):
    def sample(self, rng, *, batch):
        return super().sample(rng, batch=batch, length=10)
