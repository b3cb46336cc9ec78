"""An application that knows nothing of otel_scorer: FastAPI in front, OpenAI's client behind."""

import json
import os

from fastapi import FastAPI
from openai import OpenAI

app = FastAPI()
client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8001/v1"), api_key="none")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def get_weather(city: str) -> str:
    return f"18 C in {city}"


@app.get("/ask")
def ask(question: str) -> dict[str, str | None]:
    messages = [{"role": "user", "content": question}]
    while True:
        reply = client.chat.completions.create(model="small", messages=messages, tools=TOOLS).choices[0].message
        if not reply.tool_calls:
            return {"answer": reply.content}
        messages.append(reply.model_dump(exclude_none=True))
        for call in reply.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
