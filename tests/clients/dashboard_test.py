#!/usr/bin/env python3
"""The dashboard in Chromium, of a server under load.

    dashboard_test.py ADDRESS [unittest options]

The server has the models encoder-mini, tiny-bert-sentiment and bert-cross-encoder. With SCONCE_SCREENSHOTS=DIRECTORY the
page is also written there as PNG, after 45 s of load each.
"""

import json
import os
import re
import shutil
import sys
import threading
import unittest
import urllib.request
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

MODELS = ["bert-cross-encoder", "encoder-mini", "tiny-bert-sentiment"]
STAGES = ["whole request", "prepare", "cache", "queue", "run", "finish", "serialise"]
A_TIME = re.compile(r"^(?!0 )[\d.]+ (µs|ms|s)$")
MEMORY = re.compile(r"^[\d.]+ [MG]iB$")
PHONE = {"width": 375, "height": 812}
DESK = {"width": 1200, "height": 900}


class Load:
    """Requests to every model, from several threads, until it is left."""

    def __init__(self, address):
        self.address = address
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=(at,)) for at in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def post(self, path, body):
        request = urllib.request.Request(f"{self.address}{path}", data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def call(self, caller):
        number = 0
        while not self.stopping.is_set():
            number += 1
            # One of ten texts is known to the cache.
            text = f"caller {caller} says number {number if number % 10 else 0} " + "and more " * (number % 9)
            self.post("/models/tiny-bert-sentiment/predict", {"inputs": text})
            self.post("/v1/embeddings", {"model": "encoder-mini", "input": [text, text + "!"]})
            if number % 5 == 0:
                self.post("/rerank", {"query": "a number", "texts": [text, "another"]})


class Dashboard(unittest.TestCase):
    address = ""

    @classmethod
    def setUpClass(cls):
        cls.playwright = sync_playwright().start()
        program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])))
        # Without a sandbox, as containers have none; the page comes from our own server.
        cls.browser = cls.playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        cls.load = Load(cls.address)
        cls.load.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.load.__exit__()
        cls.browser.close()
        cls.playwright.stop()

    def open(self, viewport=DESK, scheme="light", **options):
        context = self.browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        self.addCleanup(context.close)
        page = context.new_page()
        self.complaints = []
        page.on("console", lambda message: message.type in ("error", "warning") and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.asked = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(f"{self.address}/")
        expect(page.locator("#state")).to_have_text("● serving")
        expect(page.locator("article")).to_have_count(len(MODELS))
        return page

    def model(self, page, name):
        return page.locator(f"article[data-model='{name}']")

    def screenshot(self, page, name):
        if directory := os.environ.get("SCONCE_SCREENSHOTS"):
            # So that the charts have a past.
            page.wait_for_timeout(45_000)
            page.screenshot(path=Path(directory) / f"{name}.png")

    def test_every_figure_is_there_and_moves_under_load(self):
        page = self.open()
        model = self.model(page, "tiny-bert-sentiment")
        self.assertEqual(model.locator(".stages tbody th").all_text_contents(), STAGES)
        rows = {row.locator("th").text_content(): row for row in model.locator(".stages tbody tr").all()}
        for stage in ["whole request", "prepare", "queue", "run", "finish", "serialise"]:
            for column in [1, 2]:
                expect(rows[stage].locator("td").nth(column - 1)).to_have_text(A_TIME, timeout=20_000)
        since_start = model.locator(".outcomes dd").last
        first = since_start.text_content()
        expect(since_start).not_to_have_text(first, timeout=10_000)
        cards = dict(zip(page.locator("#cards dt").all_text_contents(), page.locator("#cards dd > span").all_text_contents()))
        self.assertGreater(float(cards["Requests per second"].replace(",", "")), 0)
        self.assertRegex(cards["Latency, p99"], A_TIME)
        self.assertRegex(cards["Busiest device"], r"^[\d.]+ %$")
        device = model.locator(".devices tbody tr").first.locator("th, td").all_text_contents()
        self.assertEqual((device[0], device[1], device[4]), ("cpu", "serves", "f32"))
        self.assertRegex(device[5], r"^[\d.]+ MiB$")
        self.assertTrue(device[7].startswith("first to complete batches"), device)
        shares = [row.locator("td").first.text_content() for row in model.locator(".batches tbody tr").all()]
        self.assertAlmostEqual(sum(float(share.removesuffix(" %")) for share in shares), 100, delta=1)
        expect(page.locator("#cache tbody th").first).to_have_text("memory")
        expect(page.locator("#process dd").first).to_have_text(MEMORY)
        expect(model.locator(".outcomes dt", has_text="items: computed")).to_have_count(1)
        self.assertEqual(self.complaints, [])

    def test_the_page_loads_nothing_from_elsewhere(self):
        page = self.open()
        expect(page.locator("#cards dd")).to_have_count(6)
        self.assertTrue(all(url.startswith((self.address, "data:")) for url in self.asked), self.asked)
        self.assertEqual(self.complaints, [])

    def test_both_colour_schemes_differ_and_have_no_violation_of_accessibility(self):
        grounds = []
        for scheme in ["light", "dark"]:
            for viewport, device in [(DESK, "desk"), (PHONE, "phone")]:
                with self.subTest(scheme=scheme, device=device):
                    page = self.open(viewport, scheme, reduced_motion="reduce")
                    expect(self.model(page, MODELS[1]).locator(".devices tbody tr")).not_to_have_count(0)
                    results = Axe().run(page)
                    self.assertEqual(results.violations_count, 0, results.generate_report())
                    self.screenshot(page, f"dashboard-{scheme}-{device}")
                    grounds.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
        self.assertEqual((grounds[0], grounds[2], len(set(grounds))), (grounds[1], grounds[3], 2))

    def test_a_phone_needs_no_horizontal_scroll(self):
        page = self.open(PHONE)
        expect(self.model(page, MODELS[1]).locator(".devices tbody tr")).not_to_have_count(0)
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), PHONE["width"])
        for box in page.locator("section, article, header, footer, .cards > div").all():
            bounds = box.bounding_box()
            if bounds:
                self.assertLessEqual(bounds["x"] + bounds["width"], PHONE["width"] + 0.5)

    def test_the_keyboard_reaches_everything_in_the_order_of_the_page(self):
        page = self.open()
        expect(page.locator("#cache tbody tr")).not_to_have_count(0)
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            name = "document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
            reached.append(page.evaluate(name))
            self.assertNotEqual(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"), "none", reached)
        regions = [*(f"Devices of {name}" for name in MODELS), "Tiers of the cache"]
        self.assertEqual(reached, ["Skip to the models", "pause", *regions, "JSON", "Prometheus"])
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        self.assertEqual(page.evaluate("document.activeElement.id"), "models")

    def test_updates_pause_and_go_on_by_keyboard(self):
        page = self.open()
        pause = page.get_by_role("button", name="Pause updates")
        pause.focus()
        page.keyboard.press("Enter")
        expect(pause).to_have_attribute("aria-pressed", "true")
        asked = len(self.asked)
        page.wait_for_timeout(2500)
        self.assertLessEqual(len(self.asked), asked + 1, "one may have been under way")
        with page.expect_response("**/metrics.json"):
            page.keyboard.press("Enter")

    def test_a_slowdown_is_said_in_words_and_announced(self):
        page = self.open(PHONE, "dark")
        status = page.locator("#degradations")
        expect(status).to_have_attribute("aria-live", "polite")
        expect(status).to_contain_text("No stage is slower")

        def slower(route):
            figures = route.fetch().json()
            figures["total"]["models"][1]["degradations"] = [
                {"stage": "run", "device": "cpu", "precision": "f32", "part": "fixed", "since": figures["time"] - 720, "ratio": 1.42, "usual": 0.002, "present": 0.00284}
            ]
            route.fulfill(json=figures)

        page.route("**/metrics.json", slower)
        expect(status).to_contain_text("encoder-mini: run in f32 on cpu (its fixed cost) is 1.4 times what it was, since ")
        results = Axe().run(page)
        self.assertEqual(results.violations_count, 0, results.generate_report())
        self.screenshot(page, "dashboard-slower")
        page.unroute("**/metrics.json")
        expect(status).to_contain_text("No stage is slower")

    def test_a_server_that_does_not_answer_is_said_to_be_gone(self):
        page = self.open()
        page.route("**/metrics.json", lambda route: route.abort())
        expect(page.locator("#state")).to_contain_text("✕ no answer since")
        page.unroute("**/metrics.json")
        expect(page.locator("#state")).to_have_text("● serving")


if __name__ == "__main__":
    Dashboard.address = f"http://{sys.argv.pop(1)}"
    unittest.main()
