"""A session that outlives the program: give `data` and the handler to a `centrifuge.Client`."""

from pathlib import Path

from centrifuge import ClientEventHandler, ConnectedContext


class SavedSession(ClientEventHandler):
    def __init__(self, file: Path) -> None:
        self.file, self.state = file, None
        self.data = {"session": file.read_text() if file.exists() else ""}

    async def on_connected(self, ctx: ConnectedContext) -> None:
        self.state, self.data["session"] = ctx.data["session"]["state"], ctx.data["session"]["id"]
        self.file.touch(mode=0o600)
        self.file.write_text(self.data["session"])
