"""Posts a message to the webhook that the plugin is configured with."""

import json


class PluginError(Exception):
    """An error with a code of its own: callers get it as `error.code`."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Plugin:
    def init(self, config):
        self.config = config

    def execute(self, action, params, context):
        body = json.dumps({"channel": self.config["channel"], "text": params["message"]})
        answer = context.http.request(
            "POST",
            self.config["url"],
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.config['token']}",
            },
            body=body,
        )
        if not 200 <= answer["status"] < 300:
            raise PluginError("webhook.refused", f"the webhook answered {answer['status']}")
        print("delivered")
        return {"delivered": True, "status": answer["status"]}
