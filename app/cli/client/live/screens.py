"""The state of what the screen shows, and how keys change it; pure."""

from dataclasses import dataclass

from app.cli.client.live.feed import Found
from app.cli.client.live.lists import NODES, POOLS, LiveRows
from app.cli.client.live.queries import Listing, ListQuery, TenantQuery

_LONGEST_SEARCH = 48


@dataclass(slots=True, kw_only=True)
class ListScreen:
    """A list that scrolls.

    Attributes:
        of: the list.
        selected: the number of the selected row in the whole list, from 0.
        offset: the number of the first row on the screen.
        rows: the number of rows that fit.
        is_typing: whether keys go into the filter.
    """

    of: LiveRows = POOLS
    order: int = 0
    search: str = ""
    is_typing: bool = False
    selected: int = 0
    offset: int = 0
    rows: int = 1
    matches: int = 1

    @property
    def sort(self) -> str:
        return self.of.orders[self.order % len(self.of.orders)]

    @property
    def query(self) -> ListQuery:
        return ListQuery(
            of=self.of,
            sort=self.sort,
            search=self.search,
            offset=self.offset,
            rows=self.rows,
        )

    def fit(self, rows: int, found: Found) -> None:
        """Adapt to the size of the screen, and to the length of the list."""
        self.rows = max(1, rows)
        if isinstance(found, Listing) and found.query.of == self.of:
            self.matches = found.matches
        self._select(self.selected)

    def press(self, key: str, character: str) -> None:
        if self.is_typing:
            self._type(key, character)
            return
        match key:
            case "up":
                self._select(self.selected - 1)
            case "down":
                self._select(self.selected + 1)
            case "page up":
                self._turn(-self.rows)
            case "page down":
                self._turn(self.rows)
            case "home":
                self._select(0)
            case "end":
                self._select(self.matches - 1)
            case "s" | "S":
                self.order += 1 if key == "s" else -1
                self._select(0)
            case "/":
                self.is_typing = True

    def _type(self, key: str, character: str) -> None:
        match key:
            case "enter":
                self.is_typing = False
            case "escape":
                self.is_typing, self.search = False, ""
            case "backspace":
                self.search = self.search[:-1]
            case _ if character.isascii() and character.isprintable():
                self.search = (self.search + character.lower())[:_LONGEST_SEARCH]
        self._select(0)

    def _turn(self, rows: int) -> None:
        self.offset += rows
        self._select(self.selected + rows)

    def _select(self, number: int) -> None:
        self.selected = max(0, min(number, self.matches - 1))
        first, last = self.selected - self.rows + 1, self.selected
        most = max(0, self.matches - self.rows)
        self.offset = max(0, min(max(first, min(self.offset, last)), most))


@dataclass(slots=True, kw_only=True)
class TenantScreen:
    """Everything about one tenant; *offset*: the first line on the screen."""

    tenant: str
    offset: int = 0

    @property
    def query(self) -> TenantQuery:
        return TenantQuery(tenant=self.tenant)

    def fit(self, rows: int, lines: int) -> None:
        """Adapt to the size of the screen, and to the number of lines."""
        self.offset = max(0, min(self.offset, lines - rows))

    def press(self, key: str, _: str) -> None:
        steps = {"up": -1, "down": 1, "page up": -10, "page down": 10, "home": -self.offset}
        self.offset = max(0, self.offset + steps.get(key, 0))


class Screens:
    """The screens that were opened from each other; the last one is visible."""

    def __init__(self, first: ListScreen) -> None:
        self.opened: list[ListScreen | TenantScreen] = [first]
        self.is_over = False

    @property
    def current(self) -> ListScreen | TenantScreen:
        return self.opened[-1]

    def press(self, key: str, character: str, found: Found) -> None:
        """Handle a key while *found* is on the screen."""
        screen = self.current
        if isinstance(screen, ListScreen) and screen.is_typing:
            screen.press(key, character)
            return
        match key:
            case "q":
                self.is_over = True
            case "escape" | "backspace":
                self._close()
            case "enter" if isinstance(screen, ListScreen):
                self._open(screen, found)
            case "n" if not (isinstance(screen, ListScreen) and screen.of == NODES):
                self.opened.append(ListScreen(of=NODES))
            case _:
                screen.press(key, character)

    def _close(self) -> None:
        if len(self.opened) > 1:
            self.opened.pop()
        elif isinstance(self.current, ListScreen):
            self.current.search = ""

    def _open(self, screen: ListScreen, found: Found) -> None:
        if not isinstance(found, Listing) or found.query.of != screen.of:
            return
        at = screen.selected - found.query.offset
        if not 0 <= at < len(found.items):
            return  # it is not on the screen yet
        opened = screen.of.opened(found.items[at])
        if isinstance(opened, str):
            self.opened.append(TenantScreen(tenant=opened))
        else:
            self.opened.append(ListScreen(of=opened))
