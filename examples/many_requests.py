"""Many requests at once: they are computed together, so eight take little longer than one."""

import asyncio
import os
import time

from openai import AsyncOpenAI


async def main() -> None:
    base_url = os.environ.get("BASE_URL", "http://localhost:8000/v1")
    async with AsyncOpenAI(base_url=base_url, api_key=os.environ.get("API_KEY", "unused")) as client:
        model = os.environ.get("MODEL") or (await client.models.list()).data[0].id

        async def ask(colour: str) -> str:
            messages = [{"role": "user", "content": f"Name something that is {colour}."}]
            answer = await client.chat.completions.create(model=model, messages=messages, max_tokens=20)
            return f"{colour}: {answer.choices[0].message.content!r}"

        begin = time.perf_counter()
        colours = ("red", "green", "blue", "white", "black", "yellow", "brown", "grey")
        for line in await asyncio.gather(*map(ask, colours)):
            print(line)
        print(f"{time.perf_counter() - begin:.1f} s")


asyncio.run(main())
