// What is drawn on a canvas in a box that scrolls.
import { useEffect, useLayoutEffect, useState } from "preact/hooks";

/** How wide a box is, in px. */
export function useWidth(box) {
  const [width, resize] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => resize(box.current.clientWidth));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  return width;
}

/** Draw after each rendering and where the box is scrolled, once a frame. draw: says whether it is to be drawn again in the next. */
export function useRedraw(box, draw) {
  useEffect(() => {
    let due = 0;
    const later = () => {
      due ||= requestAnimationFrame(() => {
        due = 0;
        if (box.current && draw()) later();
      });
    };
    later();
    const scrolled = box.current;
    scrolled.addEventListener("scroll", later, { passive: true });
    return () => {
      cancelAnimationFrame(due);
      scrolled.removeEventListener("scroll", later);
    };
  });
}
