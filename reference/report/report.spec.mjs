// Tests a report in a browser: it requests nothing but itself, there is no console message or error, and all controls
// work, with the mouse and with the keyboard, in the light and in the dark theme.
//
//   node report.spec.mjs REPORT.html [FOLDER FOR SCREENSHOTS]
//
// The browser is the system's Chromium, or the one whose path is in PLIMSOLL_CHROMIUM.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const file = process.argv[2] ?? process.env.PLIMSOLL_REPORT;
assert.ok(file, "usage: node report.spec.mjs REPORT.html [FOLDER]");
const address = pathToFileURL(path.resolve(file)).href;
const shots = process.argv[3] ?? process.env.PLIMSOLL_SHOTS ?? "shots";
mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.PLIMSOLL_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"],
});

// Requests, console warnings and errors, and exceptions of a page: each makes the test fail.
const faults = [];

const open = async (options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const isOwn = request.url() === address || request.url().startsWith("blob:");
    if (!isOwn) faults.push(`request: ${request.url()}`);
  });
  await page.goto(address);
  return page;
};

let passed = 0;
let failed = 0;
const check = async (name, body) => {
  try {
    await body();
    assert.deepEqual(faults.splice(0), []);
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
};

const number = (text) => Number(text.replace("\u2212", "-").replace("+", ""));
const isSorted = (values) => values.every((value, at) => at === 0 || values[at - 1] <= value);
const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
const rows = (page) => page.locator(".samples tbody tr:not(.detail)");
const column = (page, at) => page.locator(`.samples tbody tr:not(.detail) > :nth-child(${at})`).allTextContents();

// Texts whose contrast with their background is below 4.5 (relative luminance, WCAG 2).
const contrasts = (page) =>
  page.evaluate(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => {
      const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = rgba(getComputedStyle(at).backgroundColor);
        if (colour[3] === 255) return colour;
      }
      return rgba(getComputedStyle(document.body).backgroundColor);
    };
    const low = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!node.textContent.trim() || ["SCRIPT", "STYLE", "NOSCRIPT", "title"].includes(element.nodeName)) continue;
      const style = getComputedStyle(element);
      const isSvg = element instanceof SVGElement;
      const ink = luminance(rgba(isSvg ? style.fill : style.color));
      const paper = luminance(behind(element));
      const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      if (ratio < 4.5) low.set(`${element.nodeName}.${element.getAttribute("class") ?? ""}`, ratio.toFixed(2));
    }
    // Every colour that a token can have, including those that no token has here.
    for (const box of document.querySelectorAll(".key i")) {
      const [ink, paper] = [getComputedStyle(document.body).color, getComputedStyle(box).backgroundColor];
      const [light, dark] = [luminance(rgba(ink)), luminance(rgba(paper))].sort((a, b) => b - a);
      if ((light + 0.05) / (dark + 0.05) < 4.5) low.set(box.className, ((light + 0.05) / (dark + 0.05)).toFixed(2));
    }
    return [...low];
  });

// No smooth scrolling: it would move elements away from the pointer.
const page = await open({ reducedMotion: "reduce" });
const hasSamples = (await page.locator("#sample-table").count()) > 0;
const hasPicker = (await page.locator("figure[data-picker]").count()) > 0;

await check("opens without requests, warnings or errors", async () => {
  assert.match(await page.title(), /LoRA boundary/);
  assert.equal(await page.locator("svg title").count(), 0, "tooltips replace SVG titles");
});

await check("injected scripts do not run", async () => {
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.body.append(script);
    const button = document.createElement("button");
    button.setAttribute("onclick", "window.ran = true");
    document.body.append(button);
    button.click();
    script.remove();
    button.remove();
    return window.ran ?? false;
  });
  assert.equal(ran, false);
  const refused = faults.splice(0);
  assert.ok(refused.length === 2 && refused.every((fault) => /Content Security Policy/.test(fault)), `${refused}`);
});

await check("nothing is wider than the viewport", async () => {
  for (const width of [1180, 700, 380]) {
    await page.setViewportSize({ width, height: 900 });
    const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(scroll <= client, `${scroll} in ${client}`);
  }
  await page.setViewportSize({ width: 1180, height: 900 });
});

await check("ids are unique, and every link within the page has a target", async () => {
  const ids = await page.locator("[id]").evaluateAll((elements) => elements.map((element) => element.id));
  assert.equal(new Set(ids).size, ids.length);
  const links = await page.locator('a[href^="#"]').evaluateAll((elements) => elements.map((element) => element.hash.slice(1)));
  for (const link of links) assert.ok(ids.includes(link), link);
});

await check("a point shows its values in a tooltip", async () => {
  await page.locator("figure[data-name=ablation] .dot[data-tip]").nth(4).hover();
  const tip = page.locator("#tip");
  assert.ok(await tip.isVisible());
  assert.match(await tip.textContent(), /4 layers kept, selection: \d/);
  await page.keyboard.press("Escape");
  assert.ok(!(await tip.isVisible()));
});

await check("a figure is one Tab stop, and arrow keys move between its points", async () => {
  const points = page.locator("figure[data-name=ablation] [data-tip]");
  const stops = await points.evaluateAll((elements) => elements.filter((element) => element.tabIndex === 0).length);
  assert.equal(stops, 1);
  await page.locator("figure[data-name=ablation] .save").focus();
  await page.keyboard.press("Tab");
  const isPoint = () => page.evaluate(() => document.activeElement.dataset.tip ?? null);
  // The scrollable region may be another Tab stop.
  if ((await isPoint()) === null) await page.keyboard.press("Tab");
  const first = await isPoint();
  await page.keyboard.press("ArrowRight");
  const second = await isPoint();
  assert.ok(first && second && first !== second, `${first}; ${second}`);
  assert.equal(await page.locator("#tip").textContent(), second);
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowRight");
  assert.ok(await isPoint(), "the focus stays on the last point");
});

if (hasPicker) {
  await check("the heat map shows the selected measure", async () => {
    const figure = page.locator("figure[data-picker]").first();
    const shown = () => figure.locator(".panel:visible h3").allTextContents();
    const before = await shown();
    assert.equal(before.length, 1);
    await figure.locator(".picker label").nth(1).click();
    const after = await shown();
    assert.equal(after.length, 1);
    assert.notEqual(before[0], after[0]);
    await figure.locator(".picker input").nth(1).focus();
    await page.keyboard.press("ArrowRight");
    assert.notEqual((await shown())[0], after[0], "also with the keyboard");
    await figure.locator(".panel:visible rect[data-tip]").nth(3).hover();
    assert.match(await page.locator("#tip").textContent(), /layer \d+, \w+: [\d−]/);
    const colours = await figure.locator(".panel:visible rect[data-tip]").evaluateAll((cells) => cells.map((cell) => getComputedStyle(cell).fill));
    assert.ok(new Set(colours).size > 3);
  });
}

await check("every figure is saved as a self-contained SVG, in light colours", async () => {
  const figures = await page.locator(".save:visible").count();
  for (let at = 0; at < figures; at += 1) {
    // A browser asks for permission before a page's eleventh download, so each figure has a page of its own.
    const other = await open();
    await other.evaluate(() => { document.documentElement.dataset.theme = "dark"; });
    const button = other.locator(".save:visible").nth(at);
    const [download] = await Promise.all([other.waitForEvent("download"), button.click()]);
    const text = await readFile(await download.path(), "utf8");
    assert.match(download.suggestedFilename(), /^[\w-]+\.svg$/);
    const told = await page.evaluate((svg) => {
      const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
      return {
        root: parsed.documentElement.localName,
        error: parsed.querySelector("parsererror")?.textContent,
        classes: parsed.querySelectorAll("[class], [style], [data-tip]").length,
        titles: parsed.querySelectorAll("title").length,
        size: ["width", "height", "viewBox"].map((name) => parsed.documentElement.getAttribute(name)),
        ink: [...new Set([...parsed.querySelectorAll("text")].map((element) => element.getAttribute("fill")))],
      };
    }, text);
    assert.equal(told.error, undefined);
    assert.deepEqual([told.root, told.classes], ["svg", 0]);
    assert.ok(told.titles > 0 && told.size.every(Boolean) && told.ink.length > 0);
    assert.ok(!/var\(|light-dark|rgba|color-mix/.test(text), "rgb() colours only");
    assert.ok(told.ink.includes("rgb(86, 97, 109)"), `expected the colour of the light theme: ${told.ink}`);
    assert.equal(await other.evaluate(() => document.documentElement.dataset.theme), "dark");
    await other.context().close();
  }
});

await check("the theme button overrides the system's theme", async () => {
  const button = page.locator("#theme");
  const light = await background(page);
  await button.click();
  const dark = await background(page);
  assert.notEqual(light, dark);
  assert.equal(await button.textContent(), "Light");
  await page.emulateMedia({ colorScheme: "dark" });
  await button.click();
  assert.equal(await background(page), light);
  await page.emulateMedia({ colorScheme: "light" });
});

if (hasSamples) {
  await check("samples are sorted as numbers, with mouse and keyboard", async () => {
    await page.locator("#sample-table").scrollIntoViewIfNeeded();
    await page.waitForSelector(".samples tbody tr");
    const heads = page.locator(".samples thead th");
    const count = await heads.count();
    assert.ok(isSorted((await column(page, 1)).map(number)), "initially by line");
    assert.equal(await heads.first().getAttribute("aria-sort"), "ascending");
    await heads.nth(count - 1).locator("button").click();
    const rising = (await column(page, count)).map(number);
    assert.ok(isSorted(rising) && rising[0] < 0, `${rising}`);
    assert.equal(await heads.nth(count - 1).getAttribute("aria-sort"), "ascending");
    assert.equal(await heads.first().getAttribute("aria-sort"), null);

    await heads.nth(count - 2).locator("button").focus();
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    const falling = (await column(page, count)).map(number).reverse();
    assert.ok(isSorted(falling));
    assert.equal(await heads.nth(count - 1).getAttribute("aria-sort"), "descending");
    await heads.first().locator("button").click();
  });

  await check("a row opens and shows coloured tokens with tooltips", async () => {
    const button = rows(page).nth(1).locator("button");
    await button.click();
    assert.equal(await button.getAttribute("aria-expanded"), "true");
    const all = page.locator(".detail .answer span");
    const spans = page.locator(".detail .answer span:not(.unscored)");
    assert.ok((await all.count()) > (await spans.count()), "the last tokens of the prompt are shown before the answer");
    await all.first().hover();
    assert.match(await page.locator("#tip").textContent(), /^".*"\nid \d+, not scored$/);
    const colours = await spans.evaluateAll((tokens) => tokens.map((token) => getComputedStyle(token).backgroundColor));
    assert.ok(colours.length > 3 && new Set(colours).size > 3, `${colours.length}`);
    await spans.nth(2).hover();
    assert.match(await page.locator("#tip").textContent(), /^".*"\nid \d+\n.+: \d+\.\d{3}\n.+: \d+\.\d{3}\nchange: [+−]?\d+\.\d{3} nats$/);
    assert.ok((await page.locator(".detail .prompt").textContent()).length > 0);
    await button.press("Enter");
    assert.equal(await page.locator(".detail").count(), 0, "closes with the keyboard");
  });

  await check("samples are filtered by part, and show the selected comparison", async () => {
    const selects = page.locator(".controls select");
    const all = await rows(page).count();
    // With cross-validation, no sample is held out.
    const wanted = new Set(await column(page, 2)).has("held out") ? ["held out"] : [];
    await selects.first().selectOption("held out");
    const heldOut = await rows(page).count();
    assert.ok(heldOut < all);
    assert.deepEqual([...new Set(await column(page, 2))], wanted);
    assert.match(await page.locator(".count").textContent(), new RegExp(`${heldOut} of ${all}`));
    await selects.first().selectOption("all");
    if ((await selects.count()) > 1) {
      const last = await page.locator(".samples thead th").count();
      const before = await column(page, last);
      await selects.nth(1).selectOption("bf");
      assert.notDeepEqual(await column(page, last), before);
      const [base, full, change] = [(await column(page, 4))[0], (await column(page, 5))[0], (await column(page, last))[0]].map(number);
      assert.ok(Math.abs(full - base - change) < 0.0021, `${full} − ${base} = ${change}`);
    }
  });
}

for (const theme of ["light", "dark"]) {
  await check(`all text has sufficient contrast; screenshots are saved: ${theme}`, async () => {
    const themed = await open({ colorScheme: theme, reducedMotion: "reduce" });
    if (hasSamples) {
      await themed.locator("#sample-table").scrollIntoViewIfNeeded();
      await themed.waitForSelector(".samples tbody tr");
      for (const at of [0, 2]) await rows(themed).nth(at).locator("button").click();
    }
    await themed.evaluate(() => document.querySelectorAll("details").forEach((element) => { element.open = true; }));
    assert.deepEqual(await contrasts(themed), []);
    await themed.evaluate(() => document.querySelectorAll("details").forEach((element) => { element.open = false; }));
    await themed.screenshot({ path: path.join(shots, `${theme}.png`), fullPage: true });
    for (const section of await themed.locator("main > section").all()) {
      const id = await section.getAttribute("aria-labelledby");
      await section.screenshot({ path: path.join(shots, `${theme}-${id}.png`) });
    }
    await themed.setViewportSize({ width: 390, height: 844 });
    await themed.screenshot({ path: path.join(shots, `${theme}-narrow.png`), fullPage: true });
    await themed.context().close();
  });
}

await check("readable without JavaScript", async () => {
  const still = await open({ javaScriptEnabled: false });
  assert.ok(await still.locator(".verdict").isVisible());
  assert.ok((await still.locator("svg title").count()) > 0);
  assert.equal(await still.locator("button:visible").count(), 0);
  assert.equal(await still.locator(".panel").count(), await still.locator(".panel:visible").count());
  if (hasSamples) assert.ok(await still.locator("noscript .note").isVisible());
  await still.screenshot({ path: path.join(shots, "no-script.png"), fullPage: true });
  await still.context().close();
});

await check("the margin moves with the keyboard and with the mouse, and the answer follows", async () => {
  const page = await open();
  const figure = page.locator('figure[data-name="needed"]');
  const slider = figure.locator('input[type="range"]');
  const answer = figure.locator(".needed-answer");
  const command = figure.locator("pre code");
  const data = JSON.parse(await figure.getAttribute("data-margin"));
  // The layers for a margin, from the data of the figure.
  const needed = (margin) => {
    const first = data.cuts.findIndex((cut) => cut.low <= margin);
    return data.cuts[(first === -1 ? data.cuts.length : first) - 1]?.kept ?? data.layers;
  };
  const expect = async () => {
    const margin = Number(await slider.inputValue());
    const text = await answer.textContent();
    const kept = needed(margin);
    assert.ok(text.startsWith(kept === data.layers ? `All ${kept} layers` : `${kept} of ${data.layers} layers`), text);
    if (kept < data.layers) assert.ok((await command.textContent()).includes(`--margin ${margin}% `));
    return [margin, kept];
  };
  const [begin, first] = await expect();
  await slider.focus();
  await page.keyboard.press("ArrowLeft");
  assert.ok(Math.abs((await expect())[0] - (begin - 0.1)) < 1e-9);
  for (let at = 0; at < 60; at += 1) await page.keyboard.press("ArrowLeft");
  const [lower, fewer] = await expect();
  assert.ok(lower < begin && fewer < first, `${fewer} of ${first}`);
  await page.keyboard.press("End");
  assert.equal((await expect())[0], 100);

  const grip = figure.locator(".level-grip");
  await grip.scrollIntoViewIfNeeded();
  const box = await grip.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2 + 60, { steps: 5 });
  await page.mouse.up();
  const [dragged] = await expect();
  assert.ok(dragged < 100, String(dragged));
  await figure.screenshot({ path: path.join(shots, "needed.png") });
  await page.context().close();
  for (const options of [{ colorScheme: "dark" }, { viewport: { width: 390, height: 800 } }]) {
    const other = await open(options);
    const name = options.colorScheme ?? "phone";
    await other.locator('figure[data-name="needed"]').screenshot({ path: path.join(shots, `needed-${name}.png`) });
    await other.context().close();
  }
});

await check("printed in light colours, without controls", async () => {
  const printed = await open({ colorScheme: "dark" });
  await printed.emulateMedia({ media: "print", colorScheme: "dark" });
  assert.equal(await background(printed), "rgb(255, 255, 255)");
  assert.equal(await printed.locator("button:visible, .picker:visible, select:visible").count(), 0);
  await printed.pdf({ path: path.join(shots, "print.pdf") });
  await printed.context().close();
});

await browser.close();
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
