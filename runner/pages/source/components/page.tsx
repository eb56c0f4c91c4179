/**
 * What every page has: its data, its heading, its theme, its sections.
 *
 * @module
 */

import { type ComponentChildren, render, type VNode } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";

/** Shows a page, given the data that its document holds. */
export function mount<T>(page: (data: T) => VNode): void {
  const data = JSON.parse(document.getElementById("data")!.textContent!) as T;
  render(page(data), document.getElementById("page")!);
}

/** The heading of the page, the switch of its theme, and what stands below. */
export function Page({ title, summary, children }: {
  readonly title: string;
  readonly summary: string;
  readonly children: ComponentChildren;
}): VNode {
  return (
    <>
      <header>
        <div>
          <h1 tabIndex={-1}>{title}</h1>
          <p>{summary}</p>
        </div>
        <ThemeSwitch />
      </header>
      <main>{children}</main>
    </>
  );
}

/** A part of the page with a heading. */
export function Section({ id, title, caption, children }: {
  readonly id: string;
  readonly title: string;
  readonly caption?: string | undefined;
  readonly children: ComponentChildren;
}): VNode {
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {caption !== undefined && <p class="caption">{caption}</p>}
      {children}
    </section>
  );
}

/** Sentences that the reader should see before the numbers. */
export function Warnings({ warnings }: { readonly warnings: readonly string[] }): VNode | null {
  if (warnings.length === 0) return null;
  return (
    <Section id="warnings" title="Warnings">
      <ul class="warnings">{warnings.map((warning) => <li key={warning}>{warning}</li>)}</ul>
    </Section>
  );
}

const THEMES = ["auto", "light", "dark"] as const;
type Theme = typeof THEMES[number];

/** Where the choice is kept; a page from a file may have no such place. */
const KEY = "saev-theme";

function keptTheme(): Theme {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem(KEY)) ?? "auto";
  } catch {
    return "auto";
  }
}

function keepTheme(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Then it lasts as long as the page.
  }
}

/** Told when the colours of the page have changed. */
const listeners = new Set<() => void>();

/** Calls back whenever the colours change, by the switch or by the system; what it returns ends that. */
export function onThemeChange(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => listeners.forEach((tell) => tell()));

function ThemeSwitch(): VNode {
  const [theme, setTheme] = useState<Theme>(keptTheme);
  useLayoutEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    keepTheme(theme);
    listeners.forEach((tell) => tell());
  }, [theme]);
  return (
    <fieldset class="theme">
      <legend>Theme</legend>
      {THEMES.map((one) => (
        <label key={one}>
          <input type="radio" name="theme" checked={theme === one} onChange={() => setTheme(one)} />
          <span>{one}</span>
        </label>
      ))}
    </fieldset>
  );
}
